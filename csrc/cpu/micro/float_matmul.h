// A product of float matrices. Every result is ((0 + a0 b0) + a1 b1) + ..., each product and each sum rounded: no
// fused multiply-adds, which CPUs without them could not do in reasonable time.
#pragma once

#include <type_traits>

#include "../float_kernels.h"
#include "float_elements.h"

namespace fastinfer {
namespace {

// Accumulators for six rows of 64 columns take 24 of 32 registers, for four rows of 16 8 of 16.
template <class Vec>
struct MatmulTile {
  static constexpr bool kIsWide = Vec::kLanes == kRowLanes;
  static constexpr int kRowsOnce = kIsWide ? 6 : 4, kParts = kIsWide ? 4 : 1;

  // Of the panel that begins where so many columns are left: whole vectors.
  static constexpr int64_t width(int64_t left) {
    const int64_t parts = (left + kRowLanes - 1) / kRowLanes;
    return (parts < kParts ? parts : kParts) * kRowLanes;
  }
};

// kRowsOnce rows from `row` on times kParts * kRowLanes columns of b, `b_step` floats from a k to the next.
template <class Vec, int kRowsOnce, int kParts>
inline __attribute__((always_inline)) void matmul_tile(const MatmulRun& run, int64_t row,
                                                       const float* b, int64_t b_step, float* out,
                                                       int64_t left) {
  using Part = RowPart<Vec>;
  Part sums[kRowsOnce][kParts];
  for (auto& sum : sums) {
    for (Part& part : sum) part = Part::of(0.0f);
  }
  const float* a = run.a + row * run.a_row;
  for (int64_t k = 0; k < run.k; k++, a += run.a_k, b += b_step) {
    Part columns[kParts];
#pragma GCC unroll 4
    for (int p = 0; p < kParts; p++) columns[p] = Part::load(b + p * kRowLanes);
#pragma GCC unroll 8
    for (int r = 0; r < kRowsOnce; r++) {
      const Part x = Part::of(a[r * run.a_row]);
#pragma GCC unroll 4
      for (int p = 0; p < kParts; p++) sums[r][p] = sums[r][p] + x * columns[p];
    }
  }
  for (int r = 0; r < kRowsOnce; r++) {
    float* to = out + (row + r) * run.out_row;
    for (int p = 0; p < kParts; p++) {
      store_part(to + p * kRowLanes, left - p * kRowLanes, sums[r][p]);
    }
  }
}

// Rows [row, row + kRowsOnce) times `columns` columns of a group, which begin at b: dense ones, `b_step` floats from
// a k to the next, or panels one after the other.
template <class Vec, int kRowsOnce>
void matmul_rows(const MatmulRun& run, int64_t row, const float* b, bool is_packed, float* out,
                 int64_t columns) {
  constexpr int kParts = MatmulTile<Vec>::kParts;
  for (int64_t c = 0; c < columns;) {
    const int64_t left = columns - c, width = MatmulTile<Vec>::width(left);
    const int64_t b_step = is_packed ? width : run.b_k;
    const float* from = b + c * (is_packed ? run.k : 1);
    const auto tile = [&]<int kWidth>(std::integral_constant<int, kWidth>) {
      matmul_tile<Vec, kRowsOnce, std::min(kWidth, kParts)>(run, row, from, b_step, out + c, left);
    };
    switch (width / kRowLanes) {
      case 1:
        tile(std::integral_constant<int, 1>{});
        break;
      case 2:
        tile(std::integral_constant<int, 2>{});
        break;
      case 3:
        tile(std::integral_constant<int, 3>{});
        break;
      default:
        tile(std::integral_constant<int, 4>{});
    }
    c += width;
  }
}

// `columns` columns from `first` on, side by side; what is missing of `width` is 0.
inline void pack_columns(const MatmulRun& run, int64_t first, int64_t columns, int64_t width,
                         float* to) {
  const float* b = run.b + first * run.b_column;
  if (run.b_k == 1) {
    // A line of cache of each column at a time: columns may be so far apart that they share few sets.
    for (int64_t k0 = 0; k0 < run.k; k0 += kRowLanes) {
      const int64_t k1 = std::min(run.k, k0 + kRowLanes);
      for (int64_t c = 0; c < columns; c++) {
        for (int64_t k = k0; k < k1; k++) to[k * width + c] = b[c * run.b_column + k];
      }
    }
    for (int64_t k = 0; k < run.k; k++) std::fill_n(to + k * width + columns, width - columns, 0.0f);
    return;
  }
  for (int64_t k = 0; k < run.k; k++, to += width) {
    for (int64_t c = 0; c < columns; c++) to[c] = b[k * run.b_k + c * run.b_column];
    for (int64_t c = columns; c < width; c++) to[c] = 0.0f;
  }
}

template <class Vec>
void matmul(const MatmulRun& run) {
  constexpr int kRowsOnce = MatmulTile<Vec>::kRowsOnce;
  for (int64_t first = 0; first < run.columns; first += run.group) {
    const int64_t columns = std::min(run.group, run.columns - first);
    // Vectors of columns that do not lie side by side, or of fewer than a vector has, are brought together.
    const bool is_packed = run.b_column != 1 || columns % kRowLanes != 0;
    const float* b = run.b + first;
    if (is_packed) {
      b = run.scratch;
      for (int64_t c = 0; c < columns && !run.is_packed;) {
        const int64_t left = columns - c, width = MatmulTile<Vec>::width(left);
        pack_columns(run, first + c, std::min(left, width), width, run.scratch + c * run.k);
        c += width;
      }
    }
    float* out = run.out + first;
    int64_t row = 0;
    for (; row + kRowsOnce <= run.rows; row += kRowsOnce) {
      matmul_rows<Vec, kRowsOnce>(run, row, b, is_packed, out, columns);
    }
    for (; row < run.rows; row++) matmul_rows<Vec, 1>(run, row, b, is_packed, out, columns);
  }
}

}  // namespace
}  // namespace fastinfer
