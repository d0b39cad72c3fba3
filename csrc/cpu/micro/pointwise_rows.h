// uint8 -> float -> uint8 of other maps: addition, multiplication and requantization of rows.
#pragma once

#include "../kernel_table.h"
#include "byte_clamp.h"

namespace fastinfer {
namespace {

// A byte in the low bits of 2^23 is the float 2^23 + byte, so interleaving with these high bits
// replaces the conversion, and one exact subtraction takes off 2^23 and the zero point.
constexpr int kMagicBits = 0x4B00;
constexpr float kMagic = 8388608.0f;

template <class Vec>
inline typename Vec::Float magic_zero(int32_t zero_point) {
  return Vec::setf(kMagic + static_cast<float>(zero_point));
}

// kBytes bytes less the zero point in lane order, which pack_lanes turns back into the order they
// had.
template <class Vec>
inline __attribute__((always_inline)) void widen_bytes(typename Vec::Int bytes,
                                                       typename Vec::Float zero,
                                                       typename Vec::Float (&f)[4]) {
  const auto low = Vec::unpack_low8(bytes, Vec::zero());
  const auto high = Vec::unpack_high8(bytes, Vec::zero());
  const auto magic = Vec::set16(kMagicBits);
  f[0] = Vec::subf(Vec::as_float(Vec::unpack_low16(low, magic)), zero);
  f[1] = Vec::subf(Vec::as_float(Vec::unpack_high16(low, magic)), zero);
  f[2] = Vec::subf(Vec::as_float(Vec::unpack_low16(high, magic)), zero);
  f[3] = Vec::subf(Vec::as_float(Vec::unpack_high16(high, magic)), zero);
}

// Rounds floats in lane order to bytes. The upper bound comes before the conversion; what is too
// small for int32 converts to its least value, which the byte clamp takes to qmin.
template <class Vec>
class Rounder {
 public:
  explicit Rounder(const Requantize& r)
      : clamp_(r.out_zero_point, r.qmin, r.qmax),
        high_(Vec::setf(static_cast<float>(r.qmax - r.out_zero_point))) {}

  __attribute__((always_inline)) typename Vec::Int bytes(
      const typename Vec::Float (&f)[4]) const {
    return Vec::pack_lanes(
        Vec::round(Vec::minf(f[0], high_)), Vec::round(Vec::minf(f[1], high_)),
        Vec::round(Vec::minf(f[2], high_)), Vec::round(Vec::minf(f[3], high_)), clamp_);
  }

 private:
  ByteClamp clamp_;
  typename Vec::Float high_;
};

// f(x, y) for every vector of x and y; bytes past the row are neither read nor written.
template <class Vec, class F>
inline __attribute__((always_inline)) void for_each_pair(const RowPair& rows, const F& f) {
  // Copies: a store of bytes may change anything in memory, in the compiler's eyes.
  const uint8_t* const x = rows.x;
  const uint8_t* const y = rows.y;
  uint8_t* const out = rows.out;
  const int64_t n = rows.n, period = rows.period;
  const int64_t step = period < n ? Vec::kBytes % period : Vec::kBytes;
  int64_t i = 0, at = 0;
  for (; i + Vec::kBytes <= n; i += Vec::kBytes) {
    Vec::store(out + i, f(Vec::load(x + i), Vec::load(y + at)));
    at += step;
    if (at >= period) at -= period;
  }
  if (const int64_t left = n - i; left > 0) {
    Vec::store_some(out + i, f(Vec::load_some(x + i, left), Vec::load_some(y + at, left)), left);
  }
}

template <class Vec>
void add_rows(const RowPair& rows, const Requantize& r, float y_multiplier,
              int32_t y_zero_point) {
  const Rounder<Vec> rounder(r);
  const auto x_zero = magic_zero<Vec>(r.x_zero_point), y_zero = magic_zero<Vec>(y_zero_point);
  const auto x_scale = Vec::setf(r.multiplier), y_scale = Vec::setf(y_multiplier);
  for_each_pair<Vec>(rows, [&](typename Vec::Int x, typename Vec::Int y) {
    typename Vec::Float f[4], g[4];
    widen_bytes<Vec>(x, x_zero, f);
    widen_bytes<Vec>(y, y_zero, g);
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
      f[j] = Vec::addf(Vec::mulf(f[j], x_scale), Vec::mulf(g[j], y_scale));
    }
    return rounder.bytes(f);
  });
}

// The product of two integers of at most 255 is exact in float32.
template <class Vec>
void mul_rows(const RowPair& rows, const Requantize& r, int32_t y_zero_point) {
  const Rounder<Vec> rounder(r);
  const auto x_zero = magic_zero<Vec>(r.x_zero_point), y_zero = magic_zero<Vec>(y_zero_point);
  const auto scale = Vec::setf(r.multiplier);
  for_each_pair<Vec>(rows, [&](typename Vec::Int x, typename Vec::Int y) {
    typename Vec::Float f[4], g[4];
    widen_bytes<Vec>(x, x_zero, f);
    widen_bytes<Vec>(y, y_zero, g);
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) f[j] = Vec::mulf(Vec::mulf(f[j], g[j]), scale);
    return rounder.bytes(f);
  });
}

template <class Vec>
void requantize_rows(const uint8_t* x, uint8_t* out, int64_t n, const Requantize& r) {
  const Rounder<Vec> rounder(r);
  const auto zero = magic_zero<Vec>(r.x_zero_point), scale = Vec::setf(r.multiplier);
  const auto convert = [&](typename Vec::Int bytes) {
    typename Vec::Float f[4];
    widen_bytes<Vec>(bytes, zero, f);
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) f[j] = Vec::mulf(f[j], scale);
    return rounder.bytes(f);
  };
  int64_t i = 0;
  for (; i + Vec::kBytes <= n; i += Vec::kBytes) Vec::store(out + i, convert(Vec::load(x + i)));
  if (i < n) Vec::store_some(out + i, convert(Vec::load_some(x + i, n - i)), n - i);
}

}  // namespace
}  // namespace fastinfer
