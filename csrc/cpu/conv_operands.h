// What every way of a dense convolution takes. Torch-free.
#pragma once

#include "conv_shape.h"
#include "gemm_panel.h"

namespace fastinfer {

class ConvOperands {
 public:
  // x: NHWC. fill: what padding holds.
  ConvOperands(const PackedView& view, const ConvGeometry& g, const uint8_t* x, uint8_t fill,
               const GemmOutput& output)
      : view_(view), h_(*view.header), g_(g), x_(x), fill_(fill), output_(output) {}

 protected:
  // That may be split by panels, or by so many rows of panels.
  Work work_of(int64_t rows) const {
    return {g_.out_pixels() * int64_t{h_.n} * h_.k, std::max(rows, view_.panels())};
  }

  const PackedView& view_;
  const PackedHeader& h_;
  const ConvGeometry g_;
  const uint8_t* x_;
  const uint8_t fill_;
  const GemmOutput output_;
};

}  // namespace fastinfer
