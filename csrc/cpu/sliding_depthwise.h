// A depthwise convolution of 3 x 3 at a horizontal stride of 1 or 2, read where the image lies. Torch-free.
#pragma once

#include "conv_shape.h"
#include "gemm_panel.h"

namespace fastinfer {

// Kernels make columns of padding themselves and rows above and below the image are one of fill, so
// nothing is copied but, where loads pass a pixel's end, the last row.
class SlidingDepthwise {
 public:
  static bool suits(const PackedView& view, const ConvGeometry& g, const GemmOutput& output);

  // As DepthwiseDriver.
  SlidingDepthwise(const PackedView& view, const ConvGeometry& g, const uint8_t* x, int32_t fill,
                   const GemmOutput& output);

  // Output rows from..to - 1, counted over all images.
  void rows(int64_t from, int64_t to);

 private:
  const uint8_t* row_at(int64_t image, int64_t y) const;

  const PackedView& view_;
  const PackedHeader& h_;
  const ConvGeometry& g_;
  const uint8_t* x_;
  const int32_t fill_;
  const GemmOutput& output_;
  const uint8_t* fill_row_;
  const uint8_t* last_row_;  // of the last image
};

}  // namespace fastinfer
