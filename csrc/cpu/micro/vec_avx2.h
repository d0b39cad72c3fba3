// AVX2 as the Vec the kernel templates are written for.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "byte_clamp.h"

namespace fastinfer {
namespace {

struct VecAvx2 {
  using Int = __m256i;
  using Float = __m256;
  static constexpr int kLanes = 8;     // int32 lanes
  static constexpr int kBytes = 32;
  static constexpr int kQuarters = 2;  // 128-bit parts
  static constexpr bool kHasMasks = false;

  static Int load(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
  static void store(void* p, Int v) { _mm256_storeu_si256(static_cast<__m256i*>(p), v); }
  // The first `count` bytes, 0..kBytes: others are neither read nor written.
  static Int load_some(const void* p, int64_t count) {
    uint8_t whole[kBytes] = {};
    std::memcpy(whole, p, static_cast<size_t>(count));
    return load(whole);
  }
  static void store_some(void* p, Int v, int64_t count) {
    uint8_t whole[kBytes];
    store(whole, v);
    std::memcpy(p, whole, static_cast<size_t>(count));
  }
  // Makes v a register in the compiler's eyes.
  static void keep(Int& v) { asm("" : "+x"(v)); }
  static Int zero() { return _mm256_setzero_si256(); }
  static Int set16(int v) { return _mm256_set1_epi16(static_cast<int16_t>(v)); }
  static Int set32(int v) { return _mm256_set1_epi32(v); }
  static Int broadcast4(const uint8_t* p) {
    int32_t v;
    std::memcpy(&v, p, 4);
    return _mm256_set1_epi32(v);
  }
  static Int add16(Int a, Int b) { return _mm256_add_epi16(a, b); }
  static Int sub16(Int a, Int b) { return _mm256_sub_epi16(a, b); }
  static Int mul16(Int a, Int b) { return _mm256_mullo_epi16(a, b); }
  template <int kBits>
  static Int up16(Int v) {
    return _mm256_slli_epi16(v, kBits);
  }
  static Int add32(Int a, Int b) { return _mm256_add_epi32(a, b); }
  static Int sub32(Int a, Int b) { return _mm256_sub_epi32(a, b); }
  template <int kBits>
  static Int up32(Int v) {
    return _mm256_slli_epi32(v, kBits);
  }
  template <int kBits>
  static Int down32(Int v) {
    return _mm256_srai_epi32(v, kBits);
  }
  // Half of each, rounded down.
  static Int half32(Int v) { return _mm256_srai_epi32(v, 1); }
  // 2^n for n in -126..127.
  static Float power_of_two(Int n) {
    return as_float(_mm256_slli_epi32(add32(n, set32(127)), 23));
  }
  static Int mul32(Int a, Int b) { return _mm256_mullo_epi32(a, b); }
  static Int max_u8(Int a, Int b) { return _mm256_max_epu8(a, b); }
  static Int mul_u8s8_add16(Int a, Int b) { return _mm256_maddubs_epi16(a, b); }
  static Int mul16_add32(Int a, Int b) { return _mm256_madd_epi16(a, b); }
  static Int unpack_low8(Int a, Int b) { return _mm256_unpacklo_epi8(a, b); }
  static Int unpack_high8(Int a, Int b) { return _mm256_unpackhi_epi8(a, b); }
  static Int unpack_low16(Int a, Int b) { return _mm256_unpacklo_epi16(a, b); }
  static Int unpack_high16(Int a, Int b) { return _mm256_unpackhi_epi16(a, b); }

  static Float loadf(const float* p) { return _mm256_loadu_ps(p); }
  static void storef(float* p, Float v) { _mm256_storeu_ps(p, v); }
  static Float setf(float v) { return _mm256_set1_ps(v); }
  static Float to_float(Int v) { return _mm256_cvtepi32_ps(v); }
  static Float as_float(Int v) { return _mm256_castsi256_ps(v); }
  static Int round(Float v) { return _mm256_cvtps_epi32(v); }
  static Float addf(Float a, Float b) { return _mm256_add_ps(a, b); }
  static Float subf(Float a, Float b) { return _mm256_sub_ps(a, b); }
  static Float mulf(Float a, Float b) { return _mm256_mul_ps(a, b); }
  static Float divf(Float a, Float b) { return _mm256_div_ps(a, b); }
  static Float sqrtf(Float v) { return _mm256_sqrt_ps(v); }
  static Float absf(Float v) { return _mm256_andnot_ps(setf(-0.0f), v); }
  static Float fmaf(Float a, Float b, Float c) { return _mm256_fmadd_ps(a, b, c); }
  // then[i] where v[i] is NaN, else otherwise[i].
  static Float if_nan(Float v, Float then, Float otherwise) {
    return _mm256_blendv_ps(otherwise, then, _mm256_cmp_ps(v, v, _CMP_UNORD_Q));
  }
  // then[i] where a[i] > b[i], else otherwise[i].
  static Float if_above(Float a, Float b, Float then, Float otherwise) {
    return _mm256_blendv_ps(otherwise, then, _mm256_cmp_ps(a, b, _CMP_GT_OQ));
  }
  // minf(x, bound): the bound when x is NaN. maxf(bound, x) keeps NaN.
  static Float minf(Float a, Float b) { return _mm256_min_ps(a, b); }
  static Float maxf(Float a, Float b) { return _mm256_max_ps(a, b); }
  static Float widen_u8(const uint8_t* p) {
    return to_float(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
  }

  // kBytes / 2 bytes to int16.
  static Int widen_u8_to_16(const uint8_t* p) {
    return _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }

  // Four vectors to bytes, clamped. In lane order: each 128-bit part holds four bytes of a, then of
  // b, c, d.
  static Int pack_lanes(Int a, Int b, Int c, Int d, const ByteClamp& clamp) {
    const Int zp = load(clamp.zero_point);
    const Int first = _mm256_adds_epi16(_mm256_packs_epi32(a, b), zp);
    const Int second = _mm256_adds_epi16(_mm256_packs_epi32(c, d), zp);
    const Int bytes = _mm256_packus_epi16(first, second);
    return _mm256_min_epu8(_mm256_max_epu8(bytes, load(clamp.low)), load(clamp.high));
  }
  // Lane order to a, b, c, d one after the other.
  static Int lanes_to_rows(Int v) {
    return _mm256_permutevar8x32_epi32(v, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
  }
  // The upper 8 bytes, to any address; _mm_storeh_pd would store an aligned double.
  static void store_high(uint8_t* to, __m128i v) {
    _mm_storeh_pi(reinterpret_cast<__m64*>(to), _mm_castsi128_ps(v));
  }
  // Lane order to `count` rows of kLanes bytes.
  static __attribute__((always_inline)) void store_rows(Int v, uint8_t* const (&to)[4],
                                                        int count) {
    const Int rows = lanes_to_rows(v);
    const __m128i low = _mm256_castsi256_si128(rows);
    const __m128i high = _mm256_extracti128_si256(rows, 1);
    _mm_storel_epi64(reinterpret_cast<__m128i*>(to[0]), low);
    if (count > 1) store_high(to[1], low);
    if (count > 2) _mm_storel_epi64(reinterpret_cast<__m128i*>(to[2]), high);
    if (count > 3) store_high(to[3], high);
  }
  // Lane order to two rows of 2 * kLanes bytes; the second may be absent.
  static __attribute__((always_inline)) void store_halves(Int v, uint8_t* to0, uint8_t* to1) {
    const Int rows = lanes_to_rows(v);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to0), _mm256_castsi256_si128(rows));
    if (to1 != nullptr) {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to1), _mm256_extracti128_si256(rows, 1));
    }
  }
  static void store_part(float* p, Float v, int part) {
    _mm_storeu_ps(p, part ? _mm256_extractf128_ps(v, 1) : _mm256_castps256_ps128(v));
  }
  static Float load_parts(const float* p, int step) {
    return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p)), _mm_loadu_ps(p + step), 1);
  }
  static float reduce_min(Float v) {
    __m128 m = _mm_min_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    m = _mm_min_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_min_ss(m, _mm_shuffle_ps(m, m, 1)));
  }
};

}  // namespace
}  // namespace fastinfer
