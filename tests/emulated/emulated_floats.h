// The arithmetic of emulated_avx512.h on floats, which includes this.
#pragma once

inline __m512 _mm512_add_ps(const __m512& a, const __m512& b) {
  return emulated::each_float([&](int i) { return a.lane[i] + b.lane[i]; });
}
inline __m512 _mm512_sub_ps(const __m512& a, const __m512& b) {
  return emulated::each_float([&](int i) { return a.lane[i] - b.lane[i]; });
}
inline __m512 _mm512_mul_ps(const __m512& a, const __m512& b) {
  return emulated::each_float([&](int i) { return a.lane[i] * b.lane[i]; });
}
inline __m512 _mm512_fmadd_ps(const __m512& a, const __m512& b, const __m512& c) {
  return emulated::each_float([&](int i) { return std::fma(a.lane[i], b.lane[i], c.lane[i]); });
}
inline __m512 _mm512_div_ps(const __m512& a, const __m512& b) {
  return emulated::each_float([&](int i) { return a.lane[i] / b.lane[i]; });
}
inline __m512 _mm512_sqrt_ps(const __m512& a) {
  return emulated::each_float([&](int i) { return std::sqrt(a.lane[i]); });
}
inline __m512 _mm512_abs_ps(const __m512& a) {
  return emulated::each_float([&](int i) { return std::fabs(a.lane[i]); });
}
// The two comparisons the kernels use.
constexpr int _CMP_UNORD_Q = 3, _CMP_GT_OQ = 30;
inline __mmask16 _mm512_cmp_ps_mask(const __m512& a, const __m512& b, int comparison) {
  int mask = 0;
  for (int i = 0; i < 16; i++) {
    const float x = a.lane[i], y = b.lane[i];
    mask |= (comparison == _CMP_GT_OQ ? x > y : std::isunordered(x, y)) << i;
  }
  return static_cast<__mmask16>(mask);
}
inline __m512 _mm512_mask_loadu_ps(const __m512& other, __mmask16 mask, const void* p) {
  const auto* from = static_cast<const float*>(p);
  return emulated::each_float([&](int i) { return (mask >> i & 1) != 0 ? from[i] : other.lane[i]; });
}
inline void _mm512_mask_storeu_ps(void* p, __mmask16 mask, const __m512& v) {
  for (int i = 0; i < 16; i++) {
    if ((mask >> i & 1) != 0) static_cast<float*>(p)[i] = v.lane[i];
  }
}
inline __m512 _mm512_mask_blend_ps(__mmask16 mask, const __m512& a, const __m512& b) {
  return emulated::each_float([&](int i) { return (mask >> i & 1 ? b : a).lane[i]; });
}
inline __m512 _mm512_min_ps(const __m512& a, const __m512& b) {
  return emulated::each_float([&](int i) { return emulated::min(a.lane[i], b.lane[i]); });
}
inline __m512 _mm512_max_ps(const __m512& a, const __m512& b) {
  return emulated::each_float([&](int i) { return emulated::max(a.lane[i], b.lane[i]); });
}
// Compilers choose the order; it shows only for NaN and signed zeros.
inline float _mm512_reduce_min_ps(__m512 v) {
  for (int half = 8; half > 0; half /= 2) {
    for (int i = 0; i < half; i++) v.lane[i] = emulated::min(v.lane[i + half], v.lane[i]);
  }
  return v.lane[0];
}
