// Sizes of a 2-D convolution over NHWC memory. Torch-free.
#pragma once

#include <cstdint>

namespace fastinfer {

struct ConvGeometry {
  int64_t batch, channels, height, width;
  int64_t out_channels, out_height, out_width;
  int64_t kh, kw, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w;
  int64_t pixel_step;  // bytes from an input pixel to the next; `channels` where they lie together

  int64_t out_pixels() const { return batch * out_height * out_width; }
  int64_t in_bytes() const { return batch * height * width * channels; }
  bool is_dense() const { return pixel_step == channels; }

  // Sets out_height and out_width; false where the kernel is larger than the padded input.
  bool set_out_size() {
    const int64_t free_h = height + 2 * pad_h - dilation_h * (kh - 1) - 1;
    const int64_t free_w = width + 2 * pad_w - dilation_w * (kw - 1) - 1;
    if (free_h < 0 || free_w < 0) return false;
    out_height = free_h / stride_h + 1;
    out_width = free_w / stride_w + 1;
    return true;
  }
};

}  // namespace fastinfer
