// Splits a depthwise convolution into rows and runs of pixels.
#pragma once

#include "conv_geometry.h"
#include "gemm_driver.h"

namespace fastinfer {

// x: NHWC. Padding holds `fill`. output as for a GEMM with one row a pixel; a dynamic weight takes
// the one scale and zero point of `output`.
void run_depthwise(const PackedView& view, const ConvGeometry& g, const uint8_t* x, int32_t fill,
                   const GemmOutput& output);

}  // namespace fastinfer
