// Splits a depthwise convolution into rows and runs of pixels. Torch-free.
#pragma once

#include "conv_shape.h"
#include "gemm_driver.h"

namespace fastinfer {

class DepthwiseDriver {
 public:
  // x: NHWC. Padding holds `fill`. output as for a GEMM with one row a pixel, but only uint8 results
  // may lie apart, residuals never; a dynamic weight takes the one scale and zero point of `output`.
  DepthwiseDriver(const PackedView& view, const ConvGeometry& g, const uint8_t* x, int32_t fill,
                  const GemmOutput& output)
      : view_(view), g_(g), x_(x), fill_(fill), output_(output) {}

  Work work() const;
  void run_part(int thread, int threads) const;

 private:
  const PackedView& view_;
  const ConvGeometry& g_;
  const uint8_t* x_;
  int32_t fill_;
  const GemmOutput& output_;
};

}  // namespace fastinfer
