// Sizes of a 2-D convolution over NHWC memory, checked once.
#pragma once

#include "conv_shape.h"
#include "packed_check.h"

namespace fastinfer {

inline std::vector<int64_t> out_shape(const ConvGeometry& g) {
  return {g.batch, g.out_channels, g.out_height, g.out_width};
}

// Checks x [N, C, H, W] and the convolution's parameters against the packed weight.
ConvGeometry check_conv(const char* op, const Tensor& x, const PackedView& view,
                        int64_t out_channels, const std::vector<int64_t>& kernel_size,
                        const std::vector<int64_t>& stride, const std::vector<int64_t>& padding,
                        const std::vector<int64_t>& dilation, int64_t groups);

// [N, C, H, W] with NHWC memory.
Tensor empty_nhwc(const std::vector<int64_t>& shape, ScalarType dtype);
// Whether a 4-D t is NHWC in memory, by strides that matter; one that is contiguous too may be.
bool is_nhwc(const Tensor& t);
// Whether results keep t's NHWC memory: any t, and not one that is contiguous too.
bool is_channels_last(const Tensor& t);
// t itself when its memory is NHWC, or a copy that is. uint8 or float32.
Tensor as_nhwc(const Tensor& t);

}  // namespace fastinfer
