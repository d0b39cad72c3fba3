// The largest byte and the mean of windows, channels side by side in a vector.
//
// A last vector that would pass the last channel begins earlier instead: some channels are computed
// twice. Fewer channels than a vector has are read whole where the bytes behind them are readable.
#pragma once

#include "pointwise_rows.h"

namespace fastinfer {
namespace {

inline int64_t block_begin(int64_t i, int64_t n, int64_t bytes) {
  return i + bytes <= n ? i : n - bytes;
}

// kTaps: the number of taps, or 0 for any.
template <class Vec, int kTaps>
void max_of_taps(const MaxRun& run) {
  const int count = kTaps > 0 ? kTaps : run.count;
  // Copies: a store of bytes may change anything in memory, in the compiler's eyes.
  const uint8_t* few[kTaps > 0 ? kTaps : 1];
  for (int t = 0; t < kTaps; t++) few[t] = run.taps[t];
  const uint8_t* const* taps = kTaps > 0 ? few : run.taps;
  const uint8_t* const last = run.taps[run.count - 1];
  const int64_t n = run.n, step = run.step, pixels = run.pixels;
  const auto largest = [&](int64_t at, const auto& load) __attribute__((always_inline)) {
    auto v = load(taps[0] + at);
#pragma GCC unroll 4
    for (int t = 1; t < count; t++) v = Vec::max_u8(v, load(taps[t] + at));
    return v;
  };
  const auto load_whole = [](const uint8_t* p) { return Vec::load(p); };
  uint8_t* out = run.out;
  if (n >= Vec::kBytes) {
    for (int64_t pixel = 0; pixel < pixels; pixel++, out += n) {
      for (int64_t i = 0; i < n; i += Vec::kBytes) {
        const int64_t at = block_begin(i, n, Vec::kBytes);
        Vec::store(out + at, largest(pixel * step + at, load_whole));
      }
    }
    return;
  }
  const auto load_some = [n](const uint8_t* p) { return Vec::load_some(p, n); };
  for (int64_t pixel = 0; pixel < pixels; pixel++, out += n) {
    const int64_t at = pixel * step;
    const bool whole = run.end - (last + at) >= Vec::kBytes;
    const auto v = whole ? largest(at, load_whole) : largest(at, load_some);
    // A whole vector passes into the outputs that are written next.
    if ((pixels - pixel) * n >= Vec::kBytes) {
      Vec::store(out, v);
    } else {
      Vec::store_some(out, v, n);
    }
  }
}

template <class Vec>
void max_rows(const MaxRun& run) {
  if (run.count == 2) return max_of_taps<Vec, 2>(run);
  if (run.count == 3) return max_of_taps<Vec, 3>(run);
  max_of_taps<Vec, 0>(run);
}

// Sums of bytes, 16 bits each: of at most kMaxTerms vectors.
template <class Vec>
struct ShortSums {
  static constexpr int64_t kMaxTerms = 256;
  typename Vec::Int low = Vec::zero(), high = Vec::zero();

  __attribute__((always_inline)) void add(typename Vec::Int bytes) {
    low = Vec::add16(low, Vec::unpack_low8(bytes, Vec::zero()));
    high = Vec::add16(high, Vec::unpack_high8(bytes, Vec::zero()));
  }
  // To int32 in lane order.
  __attribute__((always_inline)) void add_to(typename Vec::Int (&sums)[4]) const {
    const auto zero = Vec::zero();
    sums[0] = Vec::add32(sums[0], Vec::unpack_low16(low, zero));
    sums[1] = Vec::add32(sums[1], Vec::unpack_high16(low, zero));
    sums[2] = Vec::add32(sums[2], Vec::unpack_low16(high, zero));
    sums[3] = Vec::add32(sums[3], Vec::unpack_high16(high, zero));
  }
};

// How many of `pixels` pixels from p on can be read in whole vectors.
template <class Vec>
inline int64_t whole_pixels(const uint8_t* p, int64_t pixels, int64_t stride,
                            const uint8_t* end) {
  while (pixels > 0 && end - (p + (pixels - 1) * stride) < Vec::kBytes) pixels--;
  return pixels;
}

// A window of any size; `count` channels from x on. Out of line: its registers are not those of the
// small windows' loop.
template <class Vec>
__attribute__((noinline)) void add_window(const MeanRun& run, const uint8_t* x, int64_t count,
                                          int32_t* total) {
  const int64_t stride = run.pixel_stride;
  typename Vec::Int sums[4] = {Vec::zero(), Vec::zero(), Vec::zero(), Vec::zero()};
  for (int64_t row = 0; row < run.rows; row++) {
    const uint8_t* const p = x + row * run.row_stride;
    const int64_t whole =
        count < Vec::kBytes ? whole_pixels<Vec>(p, run.pixels, stride, run.end) : run.pixels;
    for (int64_t i = 0; i < run.pixels;) {
      constexpr int64_t kMost = ShortSums<Vec>::kMaxTerms;
      const int64_t to = run.pixels - i < kMost ? run.pixels : i + kMost;
      ShortSums<Vec> part;
      for (; i < to && i < whole; i++) part.add(Vec::load(p + i * stride));
      for (; i < to; i++) part.add(Vec::load_some(p + i * stride, count));
      part.add_to(sums);
    }
  }
  for (int j = 0; j < 4; j++) Vec::store(total + j * Vec::kLanes, sums[j]);
}

template <class Vec>
void mean_rows(const MeanRun& run, const Requantize& r) {
  const Rounder<Vec> rounder(r);
  const auto scale = Vec::setf(r.multiplier);
  const auto zero = Vec::set32(static_cast<int>(r.x_zero_point * run.rows * run.pixels));
  const int64_t n = run.n, rows = run.rows, pixels = run.pixels;
  const int64_t stride = run.pixel_stride, row_stride = run.row_stride;
  const int64_t count = n < Vec::kBytes ? n : Vec::kBytes;
  const bool is_small = rows * pixels <= ShortSums<Vec>::kMaxTerms && count == Vec::kBytes;
  const uint8_t* window = run.x;
  uint8_t* out = run.out;
  for (int64_t i = 0; i < run.outputs; i++, window += run.step, out += run.out_step) {
    for (int64_t c = 0; c < n; c += Vec::kBytes) {
      const int64_t at = block_begin(c, n, count);
      typename Vec::Int sums[4] = {Vec::zero(), Vec::zero(), Vec::zero(), Vec::zero()};
      if (is_small) {
        ShortSums<Vec> all;
        const uint8_t* row = window + at;
        for (int64_t y = 0; y < rows; y++, row += row_stride) {
          const uint8_t* p = row;
          for (int64_t x = 0; x < pixels; x++, p += stride) all.add(Vec::load(p));
        }
        all.add_to(sums);
      } else {
        int32_t total[Vec::kBytes];
        add_window<Vec>(run, window + at, count, total);
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) sums[j] = Vec::load(total + j * Vec::kLanes);
      }
      typename Vec::Float f[4];
#pragma GCC unroll 4
      for (int j = 0; j < 4; j++) {
        f[j] = Vec::mulf(Vec::to_float(Vec::sub32(sums[j], zero)), scale);
      }
      if (count == Vec::kBytes) {
        Vec::store(out + at, rounder.bytes(f));
      } else {
        Vec::store_some(out + at, rounder.bytes(f), count);
      }
    }
  }
}

}  // namespace
}  // namespace fastinfer
