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

// The sums of a window's pixels in lane order; `count` channels from x on.
template <class Vec>
inline __attribute__((always_inline)) void window_sums(const MeanRun& run, const uint8_t* x,
                                                       int64_t count,
                                                       typename Vec::Int (&sums)[4]) {
  // 256 bytes of 255 fit 16 bits.
  constexpr int64_t kRoom = 256;
  const auto zero = Vec::zero();
  auto low = zero, high = zero;
  int64_t room = kRoom;
  for (auto& sum : sums) sum = zero;
  const auto add = [&](typename Vec::Int bytes) __attribute__((always_inline)) {
    low = Vec::add16(low, Vec::unpack_low8(bytes, zero));
    high = Vec::add16(high, Vec::unpack_high8(bytes, zero));
  };
  const auto flush = [&]() __attribute__((always_inline)) {
    sums[0] = Vec::add32(sums[0], Vec::unpack_low16(low, zero));
    sums[1] = Vec::add32(sums[1], Vec::unpack_high16(low, zero));
    sums[2] = Vec::add32(sums[2], Vec::unpack_low16(high, zero));
    sums[3] = Vec::add32(sums[3], Vec::unpack_high16(high, zero));
    low = high = zero;
    room = kRoom;
  };
  const int64_t stride = run.pixel_stride;
  for (int64_t row = 0; row < run.rows; row++) {
    const uint8_t* p = x + row * run.row_stride;
    int64_t whole = run.pixels;
    if (count < Vec::kBytes) {
      while (whole > 0 && run.end - (p + (whole - 1) * stride) < Vec::kBytes) whole--;
    }
    for (int64_t i = 0; i < run.pixels;) {
      const int64_t to = i + room < run.pixels ? i + room : run.pixels;
      room -= to - i;
      for (; i < to && i < whole; i++) add(Vec::load(p + i * stride));
      for (; i < to; i++) add(Vec::load_some(p + i * stride, count));
      if (room == 0) flush();
    }
  }
  flush();
}

template <class Vec>
void mean_rows(const MeanRun& run, const Requantize& r) {
  const Rounder<Vec> rounder(r);
  const auto scale = Vec::setf(r.multiplier);
  const auto zero = Vec::set32(static_cast<int>(r.x_zero_point * run.rows * run.pixels));
  const int64_t n = run.n;
  const int64_t count = n < Vec::kBytes ? n : Vec::kBytes;
  for (int64_t i = 0; i < run.outputs; i++) {
    for (int64_t c = 0; c < n; c += Vec::kBytes) {
      const int64_t at = block_begin(c, n, count);
      typename Vec::Int sums[4];
      typename Vec::Float f[4];
      window_sums<Vec>(run, run.x + i * run.step + at, count, sums);
      for (int j = 0; j < 4; j++) {
        f[j] = Vec::mulf(Vec::to_float(Vec::sub32(sums[j], zero)), scale);
      }
      uint8_t* const out = run.out + i * run.out_step + at;
      if (count == Vec::kBytes) {
        Vec::store(out, rounder.bytes(f));
      } else {
        Vec::store_some(out, rounder.bytes(f), count);
      }
    }
  }
}

}  // namespace
}  // namespace fastinfer
