// Sizes of a 2-D convolution over NHWC memory. Torch-free.
#pragma once

#include <cstdint>

namespace fastinfer {

struct ConvGeometry {
  int64_t batch, channels, height, width;
  int64_t out_channels, out_height, out_width;
  int64_t kh, kw, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w;

  int64_t out_pixels() const { return batch * out_height * out_width; }
};

}  // namespace fastinfer
