// Depthwise convolution with a kernel of 3 x 3 and a horizontal stride of 1 or 2, one output row, pixel by
// pixel.
//
// Each column of three input pixels is interleaved once, and its products go to all output pixels that it
// is a column of the kernel for. Their sums and all weights are in registers. Columns of padding are not
// read.
#pragma once

#include "int8_depthwise.h"

namespace fastinfer {
namespace {

// What a row of results takes of its columns and gives to memory. Weights and lane order are those of
// int8_depthwise. kSpan: run.span.
template <class Vec, bool kPlain, int kSpan>
struct Columns {
  using Int = typename Vec::Int;
  static constexpr int kCount = 3;

  const ColumnsRun& run;
  const Epilogue& e;
  const ByteClamp& clamp;
  const int64_t free;  // pixels whose results may pass the block's end
  const Int fill;
  Int weight[kCount][4];

  inline __attribute__((always_inline)) Columns(const ColumnsRun& run_in, const Epilogue& e_in,
                                                const ByteClamp& clamp_in)
      : run(run_in),
        e(e_in),
        clamp(clamp_in),
        free(e.n_valid == Vec::kBytes ? run.pixels : run.may_pass ? run.pixels - 1 : 0),
        fill(Vec::set32(run.fill * 0x01010101)) {
    const auto* const w = static_cast<const int8_t*>(run.weight);
#pragma GCC unroll 3
    for (int j = 0; j < kCount; j++) {
#pragma GCC unroll 4
      for (int v = 0; v < 4; v++) weight[j][v] = Vec::load(w + (j * 4 + v) * Vec::kBytes);
    }
  }

  // Column c, counted from the first one of padding.
  inline __attribute__((always_inline)) void load(int64_t c, Int (&x)[4]) const {
#pragma GCC unroll 4
    for (int v = 0; v < 4; v++) x[v] = fill;
    const int64_t from = c - run.pad, to = from + kSpan;
    if (to <= 0 || from >= run.width) return;
    const int64_t at = from * run.step;
    const Int zero = Vec::zero();
    Int a, b, last;
    if (kSpan == 1 || (from >= 0 && to <= run.width)) [[likely]] {
      a = Vec::load(run.rows[0] + at);
      b = Vec::load(run.rows[1] + at);
      last = Vec::load(run.rows[2] + at);
    } else {  // of two pixels one is padding
      const uint64_t first = (uint64_t{1} << run.step) - 1, real = from < 0 ? ~first : first;
      a = Vec::load_where(run.rows[0] + at, real, fill);
      b = Vec::load_where(run.rows[1] + at, real, fill);
      last = Vec::load_where(run.rows[2] + at, real, fill);
    }
    const Int ab[2] = {Vec::unpack_low8(a, b), Vec::unpack_high8(a, b)};
    const Int c0[2] = {Vec::unpack_low8(last, zero), Vec::unpack_high8(last, zero)};
#pragma GCC unroll 2
    for (int half = 0; half < 2; half++) {
      x[2 * half] = Vec::unpack_low16(ab[half], c0[half]);
      x[2 * half + 1] = Vec::unpack_high16(ab[half], c0[half]);
    }
  }
  inline __attribute__((always_inline)) void start(Int (&sums)[4]) const {
#pragma GCC unroll 4
    for (int v = 0; v < 4; v++) sums[v] = Vec::load(e.bias + v * Vec::kLanes);
  }
  // The products of a column as column j of the kernel.
  inline __attribute__((always_inline)) void add(Int (&sums)[4], const Int (&x)[4], int j) const {
#pragma GCC unroll 4
    for (int v = 0; v < 4; v++) sums[v] = Vec::dot_u8s8(sums[v], x[v], weight[j][v]);
  }
  inline __attribute__((always_inline)) void finish(const Int (&sums)[4], int64_t pixel) const {
    Int q[4];
#pragma GCC unroll 4
    for (int v = 0; v < 4; v++) {
      q[v] = Vec::round(
          Vec::mulf(Vec::to_float(sums[v]), Vec::loadf(e.multiplier + v * Vec::kLanes)));
    }
    Int bytes;
    if constexpr (kPlain) {
      bytes = Vec::pack_lanes_plain(q[0], q[1], q[2], q[3]);
    } else {
      bytes = Vec::pack_lanes(q[0], q[1], q[2], q[3], clamp);
    }
    uint8_t* const to = e.out_u8 + pixel * e.ldc;
    if (pixel < free) {
      Vec::store(to, bytes);
    } else {
      Vec::store_some(to, bytes, e.n_valid);
    }
  }
};

// Column c is the last one of pixel c - 2 and the first one of pixel c. A pixel's sums are in slot
// pixel % 3, so three columns are written out.
template <class Vec, bool kPlain>
__attribute__((noinline)) void columns_of_three(const ColumnsRun& run, const Epilogue& e,
                                                const ByteClamp& clamp) {
  const Columns<Vec, kPlain, 1> columns(run, e, clamp);
  typename Vec::Int acc[3][4];
#pragma GCC unroll 3
  for (auto& sums : acc) columns.start(sums);
  const auto column = [&]<int kSlot>(int64_t c) __attribute__((always_inline)) {
    typename Vec::Int x[4];
    columns.load(c, x);
    constexpr int kDone = (kSlot + 1) % 3;
    columns.add(acc[kDone], x, 2);
    columns.add(acc[(kSlot + 2) % 3], x, 1);
    columns.add(acc[kSlot], x, 0);
    if (c >= 2) columns.finish(acc[kDone], c - 2);
    columns.start(acc[kDone]);
  };
  const int64_t count = run.pixels + 2;
  int64_t c = 0;
  for (; c + 3 <= count; c += 3) {
    column.template operator()<0>(c);
    column.template operator()<1>(c + 1);
    column.template operator()<2>(c + 2);
  }
  if (c < count) column.template operator()<0>(c);
  if (c + 1 < count) column.template operator()<1>(c + 1);
}

// Column 2 p is the first one of pixel p and the last one of pixel p - 1.
template <class Vec, bool kPlain, int kSpan>
__attribute__((noinline)) void columns_of_two(const ColumnsRun& run, const Epilogue& e,
                                              const ByteClamp& clamp) {
  const Columns<Vec, kPlain, kSpan> columns(run, e, clamp);
  typename Vec::Int acc[2][4], x[4];
  columns.load(0, x);
  columns.start(acc[0]);
  columns.add(acc[0], x, 0);
  const auto pixel = [&]<int kSlot>(int64_t p) __attribute__((always_inline)) {
    columns.load(2 * p + 1, x);
    columns.add(acc[kSlot], x, 1);
    columns.load(2 * p + 2, x);
    columns.add(acc[kSlot], x, 2);
    columns.start(acc[1 - kSlot]);
    columns.add(acc[1 - kSlot], x, 0);
    columns.finish(acc[kSlot], p);
  };
  int64_t p = 0;
  for (; p + 2 <= run.pixels; p += 2) {
    pixel.template operator()<0>(p);
    pixel.template operator()<1>(p + 1);
  }
  if (p < run.pixels) pixel.template operator()<0>(p);
}

template <class Vec, bool kPlain>
inline void depthwise_columns(const ColumnsRun& run, const Epilogue& e, const ByteClamp& clamp) {
  if (run.stride == 1) {
    columns_of_three<Vec, kPlain>(run, e, clamp);
  } else if (run.span == 1) {
    columns_of_two<Vec, kPlain, 1>(run, e, clamp);
  } else {
    columns_of_two<Vec, kPlain, 2>(run, e, clamp);
  }
}

template <class Vec>
void int8_depthwise_columns(const ColumnsRun& run, const Epilogue& e) {
  const ByteClamp clamp(e.out_zero_point, e.qmin, e.qmax);
  if (clamp.is_plain) {
    depthwise_columns<Vec, true>(run, e, clamp);
  } else {
    depthwise_columns<Vec, false>(run, e, clamp);
  }
}

}  // namespace
}  // namespace fastinfer
