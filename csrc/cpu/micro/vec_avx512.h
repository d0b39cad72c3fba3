// AVX-512 (F, BW, DQ, VL) as the Vec the kernel templates are written for.
#pragma once

#ifdef FASTINFER_EMULATED_AVX512
#include "emulated_avx512.h"
#else
#include <immintrin.h>
#endif

#include <cstdint>
#include <cstring>

#include "byte_clamp.h"

namespace fastinfer {
namespace {

struct VecAvx512 {
  using Int = __m512i;
  using Float = __m512;
  static constexpr int kLanes = 16;
  static constexpr int kBytes = 64;
  static constexpr int kQuarters = 4;
  static constexpr bool kHasMasks = true;

  static Int load(const void* p) { return _mm512_loadu_si512(p); }
  static void store(void* p, Int v) { _mm512_storeu_si512(p, v); }
  // The first `count` bytes, 0..kBytes: others are neither read nor written.
  static Int load_some(const void* p, int64_t count) {
    return _mm512_maskz_loadu_epi8(first_bytes(count), p);
  }
  static void store_some(void* p, Int v, int64_t count) {
    _mm512_mask_storeu_epi8(p, first_bytes(count), v);
  }
  static uint64_t first_bytes(int64_t count) {
    return count >= kBytes ? ~uint64_t{0} : (uint64_t{1} << count) - 1;
  }
  // Makes v a register in the compiler's eyes.
  static void keep([[maybe_unused]] Int& v) {
#ifndef FASTINFER_EMULATED_AVX512
    asm("" : "+v"(v));
#endif
  }
  static Int zero() { return _mm512_setzero_si512(); }
  static Int set16(int v) { return _mm512_set1_epi16(static_cast<int16_t>(v)); }
  static Int set32(int v) { return _mm512_set1_epi32(v); }
  static Int broadcast4(const uint8_t* p) {
    int32_t v;
    std::memcpy(&v, p, 4);
    return _mm512_set1_epi32(v);
  }
  static Int add16(Int a, Int b) { return _mm512_add_epi16(a, b); }
  static Int sub16(Int a, Int b) { return _mm512_sub_epi16(a, b); }
  static Int mul16(Int a, Int b) { return _mm512_mullo_epi16(a, b); }
  template <int kBits>
  static Int up16(Int v) {
    return _mm512_slli_epi16(v, kBits);
  }
  static Int add32(Int a, Int b) { return _mm512_add_epi32(a, b); }
  static Int sub32(Int a, Int b) { return _mm512_sub_epi32(a, b); }
  template <int kBits>
  static Int up32(Int v) {
    return _mm512_slli_epi32(v, kBits);
  }
  template <int kBits>
  static Int down32(Int v) {
    return _mm512_srai_epi32(v, kBits);
  }
  // Half of each, rounded down.
  static Int half32(Int v) { return _mm512_srai_epi32(v, 1); }
  // 2^n for n in -126..127.
  static Float power_of_two(Int n) {
    return as_float(_mm512_slli_epi32(add32(n, set32(127)), 23));
  }
  static Int mul32(Int a, Int b) { return _mm512_mullo_epi32(a, b); }
  static Int max_u8(Int a, Int b) { return _mm512_max_epu8(a, b); }
  static Int mul_u8s8_add16(Int a, Int b) { return _mm512_maddubs_epi16(a, b); }
  static Int mul16_add32(Int a, Int b) { return _mm512_madd_epi16(a, b); }
  static Int unpack_low8(Int a, Int b) { return _mm512_unpacklo_epi8(a, b); }
  static Int unpack_high8(Int a, Int b) { return _mm512_unpackhi_epi8(a, b); }
  static Int unpack_low16(Int a, Int b) { return _mm512_unpacklo_epi16(a, b); }
  static Int unpack_high16(Int a, Int b) { return _mm512_unpackhi_epi16(a, b); }

  static Float loadf(const float* p) { return _mm512_loadu_ps(p); }
  static void storef(float* p, Float v) { _mm512_storeu_ps(p, v); }
  // The first `count` floats, 0..kLanes: others are neither read nor written.
  static Float load_somef(const float* p, int count, Float others) {
    return _mm512_mask_loadu_ps(others, static_cast<__mmask16>(first(count, kLanes)), p);
  }
  static void store_somef(float* p, Float v, int count) {
    _mm512_mask_storeu_ps(p, static_cast<__mmask16>(first(count, kLanes)), v);
  }
  static Float setf(float v) { return _mm512_set1_ps(v); }
  static Float to_float(Int v) { return _mm512_cvtepi32_ps(v); }
  static Float as_float(Int v) { return _mm512_castsi512_ps(v); }
  static Int round(Float v) { return _mm512_cvtps_epi32(v); }
  static Float addf(Float a, Float b) { return _mm512_add_ps(a, b); }
  static Float subf(Float a, Float b) { return _mm512_sub_ps(a, b); }
  static Float mulf(Float a, Float b) { return _mm512_mul_ps(a, b); }
  static Float divf(Float a, Float b) { return _mm512_div_ps(a, b); }
  static Float sqrtf(Float v) { return _mm512_sqrt_ps(v); }
  static Float absf(Float v) { return _mm512_abs_ps(v); }
  static Float fmaf(Float a, Float b, Float c) { return _mm512_fmadd_ps(a, b, c); }
  // then[i] where v[i] is NaN, else otherwise[i].
  static Float if_nan(Float v, Float then, Float otherwise) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), otherwise, then);
  }
  // then[i] where a[i] > b[i], else otherwise[i].
  static Float if_above(Float a, Float b, Float then, Float otherwise) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_GT_OQ), otherwise, then);
  }
  // minf(x, bound): the bound when x is NaN. maxf(bound, x) keeps NaN.
  static Float minf(Float a, Float b) { return _mm512_min_ps(a, b); }
  static Float maxf(Float a, Float b) { return _mm512_max_ps(a, b); }
  static Float widen_u8(const uint8_t* p) {
    return to_float(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
  }
  // The same of the first `count` bytes; others are not read. A count out of 0..16 means the nearest.
  static Float widen_some_u8(const uint8_t* p, int count) {
    const __m128i bytes = _mm_maskz_loadu_epi8(static_cast<__mmask16>(first(count, 16)), p);
    return to_float(_mm512_cvtepu8_epi32(bytes));
  }
  static uint32_t first(int count, int all) {
    return count >= all ? (1u << (all - 1)) * 2 - 1 : count <= 0 ? 0 : (1u << count) - 1;
  }

  // kBytes / 2 bytes to int16.
  static Int widen_u8_to_16(const uint8_t* p) {
    return _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }

  // Four vectors to bytes, clamped. In lane order: each 128-bit part holds four bytes of a, then of
  // b, c, d.
  static Int pack_lanes(Int a, Int b, Int c, Int d, const ByteClamp& clamp) {
    const Int zp = load(clamp.zero_point);
    const Int first = _mm512_adds_epi16(_mm512_packs_epi32(a, b), zp);
    const Int second = _mm512_adds_epi16(_mm512_packs_epi32(c, d), zp);
    const Int bytes = _mm512_packus_epi16(first, second);
    return _mm512_min_epu8(_mm512_max_epu8(bytes, load(clamp.low)), load(clamp.high));
  }
  // The same with zero point 0 and no narrower clamp.
  static Int pack_lanes_plain(Int a, Int b, Int c, Int d) {
    return _mm512_packus_epi16(_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d));
  }
  // Lane order to a, b, c, d one after the other.
  static Int lanes_to_rows(Int v) {
    const Int order =
        _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    return _mm512_permutexvar_epi32(order, v);
  }
  // Lane order to `count` rows of kLanes bytes.
  static __attribute__((always_inline)) void store_rows(Int v, uint8_t* const (&to)[4],
                                                        int count) {
    const Int rows = lanes_to_rows(v);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to[0]), _mm512_castsi512_si128(rows));
    if (count > 1) {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to[1]), _mm512_extracti32x4_epi32(rows, 1));
    }
    if (count > 2) {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to[2]), _mm512_extracti32x4_epi32(rows, 2));
    }
    if (count > 3) {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to[3]), _mm512_extracti32x4_epi32(rows, 3));
    }
  }
  // Lane order to two rows of 2 * kLanes bytes; the second may be absent.
  static __attribute__((always_inline)) void store_halves(Int v, uint8_t* to0, uint8_t* to1) {
    const Int rows = lanes_to_rows(v);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to0), _mm512_castsi512_si256(rows));
    if (to1 != nullptr) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to1), _mm512_extracti64x4_epi64(rows, 1));
    }
  }
  // The same, the first `n` bytes of each row: n <= kLanes, or 2 * kLanes.
  static __attribute__((always_inline)) void store_some_rows(Int v, uint8_t* const (&to)[4],
                                                             int count, int n) {
    const Int rows = lanes_to_rows(v);
    const auto mask = static_cast<__mmask16>(first(n, 16));
    _mm_mask_storeu_epi8(to[0], mask, _mm512_castsi512_si128(rows));
    if (count > 1) _mm_mask_storeu_epi8(to[1], mask, _mm512_extracti32x4_epi32(rows, 1));
    if (count > 2) _mm_mask_storeu_epi8(to[2], mask, _mm512_extracti32x4_epi32(rows, 2));
    if (count > 3) _mm_mask_storeu_epi8(to[3], mask, _mm512_extracti32x4_epi32(rows, 3));
  }
  static __attribute__((always_inline)) void store_some_halves(Int v, uint8_t* to0, uint8_t* to1,
                                                               int n) {
    const Int rows = lanes_to_rows(v);
    const auto mask = static_cast<__mmask32>(first(n, 32));
    _mm256_mask_storeu_epi8(to0, mask, _mm512_castsi512_si256(rows));
    if (to1 != nullptr) _mm256_mask_storeu_epi8(to1, mask, _mm512_extracti64x4_epi64(rows, 1));
  }
  static void store_part(float* p, Float v, int part) {
    float whole[16];
    _mm512_storeu_ps(whole, v);
    std::memcpy(p, whole + part * 4, 16);
  }
  static Float load_parts(const float* p, int step) {
    float whole[16];
    for (int i = 0; i < 4; i++) std::memcpy(whole + i * 4, p + i * step, 16);
    return _mm512_loadu_ps(whole);
  }
  static float reduce_min(Float v) { return _mm512_reduce_min_ps(v); }
};

}  // namespace
}  // namespace fastinfer
