// Rows quantized by their own ranges, as a dynamic linear layer's kernels read them. Torch-free.
#pragma once

#include "gemm_driver.h"
#include "range.h"

namespace fastinfer {

// A row's codes, then its scale and its zero point.
struct QuantizedRow {
  int64_t k;  // codes

  int64_t scale() const { return divide_up(k, 4) * 4; }  // bytes from the row's first
  int64_t zero_point() const { return scale() + int64_t{sizeof(float)}; }
  // Of a row: whole lines of cache, so that no two threads write one.
  int64_t bytes() const { return divide_up(zero_point() + int64_t{sizeof(int32_t)}, kLineBytes) * kLineBytes; }

  // Such rows, the first at x, as a GEMM reads them: their codes, and their ranges for its results.
  MatrixRows matrix(const uint8_t* x) const { return {x, k, bytes()}; }
  void bind(const uint8_t* x, GemmOutput& output) const {
    output.row_scale = reinterpret_cast<const float*>(x + scale());
    output.row_zero_point = reinterpret_cast<const int32_t*>(x + zero_point());
    output.row_step = static_cast<int>(bytes() / int64_t{sizeof(float)});
  }
};

// From rows of k floats, dense, to quantized ones.
struct RowQuantizer {
  const KernelTable& table;
  const float* x;
  uint8_t* out;
  int64_t rows, k;

  Work work() const { return {rows * k * kMoveWork, rows}; }
  void run_part(int thread, int threads) const {
    const QuantizedRow row{k};
    const auto [begin, end] = share_of(rows, thread, threads);
    for (int64_t r = begin; r < end; r++) {
      uint8_t* const to = out + r * row.bytes();
      const RangeParams range = quantize_row(table, x + r * k, k, to);
      *reinterpret_cast<float*>(to + row.scale()) = range.scale;
      *reinterpret_cast<int32_t*>(to + row.zero_point()) = range.zero_point;
    }
  }
};

}  // namespace fastinfer
