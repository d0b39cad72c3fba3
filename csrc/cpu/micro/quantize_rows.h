// Quantize, dequantize and find the range of contiguous values.
#pragma once

#include <cstring>

#include "../kernel_table.h"

namespace fastinfer {
namespace {

// clamp(rint(x * inverse_scale) + zero_point, 0, 255); NaN becomes 255.
template <class Vec>
inline typename Vec::Int quantize_lanes(const float* x, typename Vec::Float inverse,
                                        typename Vec::Float high) {
  return Vec::round(Vec::minf(Vec::mulf(Vec::loadf(x), inverse), high));
}

template <class Vec>
void quantize_rows(const float* x, uint8_t* q, int64_t n, float inverse_scale,
                   int32_t zero_point) {
  constexpr int kStep = 4 * Vec::kLanes;
  const ByteClamp clamp(zero_point, 0, 255);
  const auto inverse = Vec::setf(inverse_scale);
  const auto high = Vec::setf(static_cast<float>(255 - zero_point));
  const auto step = [&](const float* from, uint8_t* to) {
    const auto a = quantize_lanes<Vec>(from, inverse, high);
    const auto b = quantize_lanes<Vec>(from + Vec::kLanes, inverse, high);
    const auto c = quantize_lanes<Vec>(from + 2 * Vec::kLanes, inverse, high);
    const auto d = quantize_lanes<Vec>(from + 3 * Vec::kLanes, inverse, high);
    Vec::store(to, Vec::lanes_to_rows(Vec::pack_lanes(a, b, c, d, clamp)));
  };
  int64_t i = 0;
  for (; i + kStep <= n; i += kStep) step(x + i, q + i);
  if (i < n) {
    float tail[kStep] = {};
    uint8_t bytes[kStep];
    std::memcpy(tail, x + i, static_cast<size_t>(n - i) * sizeof(float));
    step(tail, bytes);
    std::memcpy(q + i, bytes, static_cast<size_t>(n - i));
  }
}

template <class Vec>
void dequantize_rows(const uint8_t* q, float* x, int64_t n, float scale, int32_t zero_point) {
  const auto s = Vec::setf(scale), zp = Vec::setf(static_cast<float>(zero_point));
  int64_t i = 0;
  // The difference of two integers below 256 is exact in float32.
  for (; i + Vec::kLanes <= n; i += Vec::kLanes) {
    Vec::storef(x + i, Vec::mulf(Vec::subf(Vec::widen_u8(q + i), zp), s));
  }
  for (; i < n; i++) x[i] = static_cast<float>(q[i] - zero_point) * scale;
}

// min(x, lo) returns lo when x is NaN, so NaN is skipped.
template <class Vec>
void min_max_rows(const float* x, int64_t n, float* lo, float* hi) {
  auto low = Vec::setf(*lo), negated_high = Vec::setf(-*hi);
  const auto zero = Vec::setf(0.0f);
  int64_t i = 0;
  for (; i + Vec::kLanes <= n; i += Vec::kLanes) {
    const auto v = Vec::loadf(x + i);
    low = Vec::minf(v, low);
    negated_high = Vec::minf(Vec::subf(zero, v), negated_high);
  }
  float l = Vec::reduce_min(low), h = -Vec::reduce_min(negated_high);
  for (; i < n; i++) {
    l = x[i] < l ? x[i] : l;
    h = x[i] > h ? x[i] : h;
  }
  *lo = l;
  *hi = h;
}

// uint8 to int16.
template <class Vec>
void widen_rows(const uint8_t* x, int16_t* out, int64_t n) {
  constexpr int kStep = Vec::kBytes / 2;
  int64_t i = 0;
  for (; i + kStep <= n; i += kStep) Vec::store(out + i, Vec::widen_u8_to_16(x + i));
  for (; i < n; i++) out[i] = x[i];
}

inline void lookup_bytes(const uint8_t* x, uint8_t* out, int64_t n, const uint8_t* table) {
  for (int64_t i = 0; i < n; i++) out[i] = table[x[i]];
}

}  // namespace
}  // namespace fastinfer
