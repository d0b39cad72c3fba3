// Rows of floats quantized by their own ranges, for the products that take them.
#pragma once

#include "gemm.h"
#include "tensors.h"

namespace fastinfer::cuda {

struct QuantizedRows {
  Tensor q;           // uint8
  Tensor scale;       // float32, one for each row
  Tensor zero_point;  // int32
};

// x [rows, n], contiguous in memory, quantized into `q`, which is of as many bytes; scale and
// zero_point hold `rows` elements each.
void quantize_ranges(const char* op, const DeviceScope& scope, const Tensor& x, int64_t rows,
                     const QuantizedRows& to, bool many_short_rows);

// Images x [N, C, H, W], NHWC in memory, each with a range of its own, and a border of their zero
// point: q is [N, C, H + 2 pad_h, W + 2 pad_w], NHWC in memory.
QuantizedRows quantize_images(const char* op, const DeviceScope& scope, const Tensor& x,
                              int64_t pad_h, int64_t pad_w);

// Has a product scale the results of `rows_per_range` rows at a time.
void bind_ranges(GemmCall& call, const QuantizedRows& rows, int64_t rows_per_range);

}  // namespace fastinfer::cuda
