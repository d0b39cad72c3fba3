// The AVX-512 intrinsics of csrc/cpu/micro as plain C++, for tests on CPUs without AVX-512.
//
// Each function does, lane for lane, what Intel's Intrinsics Guide says of its name. Only the SSE2
// header is included: it leaves every __m512 and _mm512 name free to be defined here. An intrinsic
// that a kernel starts to use and that is missing here is a compile error. check_emulation.cpp
// compares the lanes that AVX2 has too with the CPU's own.
#pragma once

#include <emmintrin.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

using __mmask16 = uint16_t;
using __mmask32 = uint32_t;
using __mmask64 = uint64_t;

struct __m256i {
  uint8_t byte[32];
};

struct __m512i {
  uint8_t byte[64];
};

struct __m512 {
  float lane[16];
};

namespace emulated {

// A vector seen as lanes of T; sums are taken in unsigned or wider types, so that they wrap.
template <class T>
struct Lanes {
  static constexpr int kCount = 64 / static_cast<int>(sizeof(T));
  static constexpr int kPerPart = 16 / static_cast<int>(sizeof(T));  // in a 128-bit part
  T lane[kCount];

  Lanes() = default;
  Lanes(const __m512i& v) { std::memcpy(lane, v.byte, 64); }
  operator __m512i() const {
    __m512i v;
    std::memcpy(v.byte, lane, 64);
    return v;
  }
};

template <class T, class F>
inline __m512i each(const F& f) {
  Lanes<T> out;
  for (int i = 0; i < Lanes<T>::kCount; i++) out.lane[i] = static_cast<T>(f(i));
  return out;
}

template <class F>
inline __m512 each_float(const F& f) {
  __m512 out;
  for (int i = 0; i < 16; i++) out.lane[i] = f(i);
  return out;
}

template <class T>
inline T saturate(int32_t x) {
  constexpr int32_t kLow = std::numeric_limits<T>::min(), kHigh = std::numeric_limits<T>::max();
  return static_cast<T>(x < kLow ? kLow : x > kHigh ? kHigh : x);
}

// Interleaves the low or high half of every 128-bit part: a, b, a, b, ...
template <class T>
inline __m512i unpack(const __m512i& va, const __m512i& vb, bool high) {
  constexpr int kPart = Lanes<T>::kPerPart;
  const Lanes<T> a = va, b = vb;
  return each<T>([&](int i) {
    const int from = i / kPart * kPart + (high ? kPart / 2 : 0) + i % kPart / 2;
    return i % 2 == 0 ? a.lane[from] : b.lane[from];
  });
}

// Every 128-bit part holds that part of a, then that part of b, saturated to the narrower To.
template <class From, class To>
inline __m512i pack(const __m512i& va, const __m512i& vb) {
  constexpr int kFrom = Lanes<From>::kPerPart, kTo = Lanes<To>::kPerPart;
  const Lanes<From> a = va, b = vb;
  return each<To>([&](int i) {
    const int part = i / kTo * kFrom, at = i % kTo;
    return saturate<To>(at < kFrom ? a.lane[part + at] : b.lane[part + at - kFrom]);
  });
}

// The second operand when either is NaN or both are zero.
inline float min(float a, float b) { return a < b ? a : b; }
inline float max(float a, float b) { return a > b ? a : b; }

// To nearest, ties to even; NaN and what int32 cannot hold become 0x80000000.
inline int32_t round(float x) {
  constexpr float kTwo31 = 2147483648.0f;
  const float rounded = std::nearbyint(x);
  if (rounded >= -kTwo31 && rounded < kTwo31) return static_cast<int32_t>(rounded);
  return std::numeric_limits<int32_t>::min();
}

}  // namespace emulated

inline __m512i _mm512_loadu_si512(const void* p) {
  __m512i v;
  std::memcpy(v.byte, p, 64);
  return v;
}
inline void _mm512_storeu_si512(void* p, const __m512i& v) { std::memcpy(p, v.byte, 64); }
inline __m512 _mm512_loadu_ps(const void* p) {
  __m512 v;
  std::memcpy(v.lane, p, 64);
  return v;
}
inline void _mm512_storeu_ps(void* p, const __m512& v) { std::memcpy(p, v.lane, 64); }

inline __m512i _mm512_setzero_si512() { return __m512i{}; }
inline __m512i _mm512_set1_epi8(char x) {
  return emulated::each<int8_t>([&](int) { return x; });
}
inline __m512i _mm512_set1_epi16(short x) {
  return emulated::each<int16_t>([&](int) { return x; });
}
inline __m512i _mm512_set1_epi32(int x) {
  return emulated::each<int32_t>([&](int) { return x; });
}
inline __m512 _mm512_set1_ps(float x) {
  return emulated::each_float([&](int) { return x; });
}
inline __m512i _mm512_setr_epi32(int a, int b, int c, int d, int e, int f, int g, int h, int i,
                                 int j, int k, int l, int m, int n, int o, int p) {
  const int32_t lanes[16] = {a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p};
  return _mm512_loadu_si512(lanes);
}

inline __m512i _mm512_add_epi16(const __m512i& va, const __m512i& vb) {
  const emulated::Lanes<uint16_t> a = va, b = vb;
  return emulated::each<uint16_t>([&](int i) { return a.lane[i] + b.lane[i]; });
}
inline __m512i _mm512_sub_epi16(const __m512i& va, const __m512i& vb) {
  const emulated::Lanes<uint16_t> a = va, b = vb;
  return emulated::each<uint16_t>([&](int i) { return a.lane[i] - b.lane[i]; });
}
inline __m512i _mm512_mullo_epi16(const __m512i& va, const __m512i& vb) {
  const emulated::Lanes<uint16_t> a = va, b = vb;
  return emulated::each<uint16_t>([&](int i) { return uint32_t{a.lane[i]} * b.lane[i]; });
}
inline __m512i _mm512_slli_epi16(const __m512i& va, unsigned count) {
  const emulated::Lanes<uint16_t> a = va;
  return emulated::each<uint16_t>([&](int i) { return count > 15 ? 0 : a.lane[i] << count; });
}
inline __m512i _mm512_srli_epi16(const __m512i& va, unsigned count) {
  const emulated::Lanes<uint16_t> a = va;
  return emulated::each<uint16_t>([&](int i) { return count > 15 ? 0 : a.lane[i] >> count; });
}
inline __m512i _mm512_srai_epi16(const __m512i& va, unsigned count) {
  const emulated::Lanes<int16_t> a = va;
  return emulated::each<int16_t>([&](int i) { return a.lane[i] >> (count > 15 ? 15 : count); });
}
inline __m512i _mm512_adds_epi16(const __m512i& va, const __m512i& vb) {
  const emulated::Lanes<int16_t> a = va, b = vb;
  return emulated::each<int16_t>(
      [&](int i) { return emulated::saturate<int16_t>(a.lane[i] + b.lane[i]); });
}
inline __m512i _mm512_add_epi32(const __m512i& va, const __m512i& vb) {
  const emulated::Lanes<uint32_t> a = va, b = vb;
  return emulated::each<uint32_t>([&](int i) { return a.lane[i] + b.lane[i]; });
}
inline __m512i _mm512_slli_epi32(const __m512i& va, unsigned count) {
  const emulated::Lanes<uint32_t> a = va;
  return emulated::each<uint32_t>([&](int i) { return count > 31 ? 0 : a.lane[i] << count; });
}
inline __m512i _mm512_srli_epi32(const __m512i& va, unsigned count) {
  const emulated::Lanes<uint32_t> a = va;
  return emulated::each<uint32_t>([&](int i) { return count > 31 ? 0 : a.lane[i] >> count; });
}
inline __m512i _mm512_or_si512(const __m512i& va, const __m512i& vb) {
  const emulated::Lanes<uint32_t> a = va, b = vb;
  return emulated::each<uint32_t>([&](int i) { return a.lane[i] | b.lane[i]; });
}
inline __m512i _mm512_srai_epi32(const __m512i& va, unsigned count) {
  const emulated::Lanes<int32_t> a = va;
  return emulated::each<int32_t>([&](int i) { return a.lane[i] >> (count > 31 ? 31 : count); });
}
inline __m512i _mm512_sub_epi32(const __m512i& va, const __m512i& vb) {
  const emulated::Lanes<uint32_t> a = va, b = vb;
  return emulated::each<uint32_t>([&](int i) { return a.lane[i] - b.lane[i]; });
}
inline __m512i _mm512_mullo_epi32(const __m512i& va, const __m512i& vb) {
  const emulated::Lanes<uint32_t> a = va, b = vb;
  return emulated::each<uint32_t>([&](int i) { return a.lane[i] * b.lane[i]; });
}
inline __m512i _mm512_max_epu8(const __m512i& a, const __m512i& b) {
  return emulated::each<uint8_t>(
      [&](int i) { return a.byte[i] > b.byte[i] ? a.byte[i] : b.byte[i]; });
}

inline __m512i _mm512_min_epu8(const __m512i& a, const __m512i& b) {
  return emulated::each<uint8_t>(
      [&](int i) { return a.byte[i] < b.byte[i] ? a.byte[i] : b.byte[i]; });
}

// Unsigned bytes of a times signed bytes of b; the sum of two neighbours saturates to int16.
inline __m512i _mm512_maddubs_epi16(const __m512i& a, const __m512i& vb) {
  const emulated::Lanes<int8_t> b = vb;
  return emulated::each<int16_t>([&](int i) {
    return emulated::saturate<int16_t>(a.byte[2 * i] * b.lane[2 * i] +
                                       a.byte[2 * i + 1] * b.lane[2 * i + 1]);
  });
}
// The sum wraps: it is -2^31 when all four factors are -2^15.
inline __m512i _mm512_madd_epi16(const __m512i& va, const __m512i& vb) {
  const emulated::Lanes<int16_t> a = va, b = vb;
  return emulated::each<uint32_t>([&](int i) {
    const int64_t first = a.lane[2 * i] * b.lane[2 * i];
    return first + a.lane[2 * i + 1] * b.lane[2 * i + 1];
  });
}
// Two products added to the sum: it wraps.
inline __m512i _mm512_dpwssd_epi32(const __m512i& vsum, const __m512i& a, const __m512i& b) {
  return _mm512_add_epi32(vsum, _mm512_madd_epi16(a, b));
}
// Unsigned bytes of a times signed bytes of b, four to a lane, added to the sum: it wraps.
inline __m512i _mm512_dpbusd_epi32(const __m512i& vsum, const __m512i& a, const __m512i& vb) {
  const emulated::Lanes<uint32_t> sum = vsum;
  const emulated::Lanes<int8_t> b = vb;
  return emulated::each<uint32_t>([&](int i) {
    int32_t products = 0;
    for (int j = 4 * i; j < 4 * i + 4; j++) products += a.byte[j] * b.lane[j];
    return sum.lane[i] + static_cast<uint32_t>(products);
  });
}

inline __m512i _mm512_unpacklo_epi8(const __m512i& a, const __m512i& b) {
  return emulated::unpack<uint8_t>(a, b, false);
}
inline __m512i _mm512_unpackhi_epi8(const __m512i& a, const __m512i& b) {
  return emulated::unpack<uint8_t>(a, b, true);
}
inline __m512i _mm512_unpacklo_epi16(const __m512i& a, const __m512i& b) {
  return emulated::unpack<uint16_t>(a, b, false);
}
inline __m512i _mm512_unpackhi_epi16(const __m512i& a, const __m512i& b) {
  return emulated::unpack<uint16_t>(a, b, true);
}
inline __m512i _mm512_packs_epi32(const __m512i& a, const __m512i& b) {
  return emulated::pack<int32_t, int16_t>(a, b);
}
inline __m512i _mm512_packus_epi16(const __m512i& a, const __m512i& b) {
  return emulated::pack<int16_t, uint8_t>(a, b);
}

inline __m512i _mm512_permutexvar_epi32(const __m512i& vindex, const __m512i& va) {
  const emulated::Lanes<uint32_t> index = vindex, a = va;
  return emulated::each<uint32_t>([&](int i) { return a.lane[index.lane[i] & 15]; });
}
// Bits 0 to 5 of an index are the byte, bit 6 says b instead of a, bit 7 is ignored.
inline __m512i _mm512_permutexvar_epi8(const __m512i& index, const __m512i& va) {
  const emulated::Lanes<uint8_t> i = index, a = va;
  return emulated::each<uint8_t>([&](int l) { return a.lane[i.lane[l] & 63]; });
}
// Each in its own 16 bytes; bit 7 of an index says 0.
inline __m512i _mm512_shuffle_epi8(const __m512i& va, const __m512i& index) {
  const emulated::Lanes<uint8_t> i = index, a = va;
  return emulated::each<uint8_t>([&](int l) {
    return (i.lane[l] & 128) != 0 ? 0 : a.lane[l / 16 * 16 + (i.lane[l] & 15)];
  });
}
inline __m512i _mm512_broadcast_i32x4(__m128i v) {
  __m512i out;
  for (int i = 0; i < 4; i++) std::memcpy(out.byte + 16 * i, &v, 16);
  return out;
}
inline __m512i _mm512_inserti32x4(const __m512i& v, __m128i part, int place) {
  __m512i out = v;
  std::memcpy(out.byte + 16 * place, &part, 16);
  return out;
}
inline __m512i _mm512_permutex2var_epi8(const __m512i& a, const __m512i& index, const __m512i& b) {
  return emulated::each<uint8_t>([&](int i) {
    const __m512i& from = (index.byte[i] & 64) != 0 ? b : a;
    return from.byte[index.byte[i] & 63];
  });
}
inline __mmask64 _mm512_movepi8_mask(const __m512i& a) {
  __mmask64 mask = 0;
  for (int i = 0; i < 64; i++) mask |= static_cast<__mmask64>(a.byte[i] >> 7) << i;
  return mask;
}
// b where the bit is set.
inline __m512i _mm512_mask_blend_epi8(__mmask64 mask, const __m512i& a, const __m512i& b) {
  return emulated::each<uint8_t>(
      [&](int i) { return (mask >> i & 1) != 0 ? b.byte[i] : a.byte[i]; });
}
inline __m128i _mm512_extracti32x4_epi32(const __m512i& v, int part) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(v.byte + part * 16));
}
inline __m128i _mm512_castsi512_si128(const __m512i& v) { return _mm512_extracti32x4_epi32(v, 0); }

inline __m256i _mm256_loadu_si256(const __m256i* p) {
  __m256i v;
  std::memcpy(v.byte, p, 32);
  return v;
}
inline void _mm256_storeu_si256(__m256i* p, const __m256i& v) { std::memcpy(p, v.byte, 32); }
inline __m256i _mm512_extracti64x4_epi64(const __m512i& v, int half) {
  __m256i out;
  std::memcpy(out.byte, v.byte + half * 32, 32);
  return out;
}
inline __m256i _mm512_castsi512_si256(const __m512i& v) { return _mm512_extracti64x4_epi64(v, 0); }

namespace emulated {

// Bytes whose bit is clear are not touched, in memory either.
template <int kCount>
inline void copy_some(void* to, const void* from, uint64_t mask) {
  for (int i = 0; i < kCount; i++) {
    if ((mask >> i & 1) != 0) {
      static_cast<uint8_t*>(to)[i] = static_cast<const uint8_t*>(from)[i];
    }
  }
}

}  // namespace emulated

inline __m128i _mm_maskz_loadu_epi8(__mmask16 mask, const void* p) {
  __m128i v = _mm_setzero_si128();
  emulated::copy_some<16>(&v, p, mask);
  return v;
}
inline void _mm_mask_storeu_epi8(void* p, __mmask16 mask, const __m128i& v) {
  emulated::copy_some<16>(p, &v, mask);
}
inline __m512i _mm512_maskz_loadu_epi8(__mmask64 mask, const void* p) {
  __m512i v{};
  emulated::copy_some<64>(v.byte, p, mask);
  return v;
}
inline __m512i _mm512_mask_loadu_epi8(const __m512i& other, __mmask64 mask, const void* p) {
  __m512i v = other;
  emulated::copy_some<64>(v.byte, p, mask);
  return v;
}
inline void _mm512_mask_storeu_epi8(void* p, __mmask64 mask, const __m512i& v) {
  emulated::copy_some<64>(p, v.byte, mask);
}
inline void _mm256_mask_storeu_epi8(void* p, __mmask32 mask, const __m256i& v) {
  emulated::copy_some<32>(p, v.byte, mask);
}

inline __m512i _mm512_cvtepu8_epi16(const __m256i& v) {
  return emulated::each<int16_t>([&](int i) { return v.byte[i]; });
}
inline __m512i _mm512_cvtepu8_epi32(__m128i v) {
  uint8_t byte[16];
  std::memcpy(byte, &v, 16);
  return emulated::each<int32_t>([&](int i) { return byte[i]; });
}
inline __m512 _mm512_cvtepi32_ps(const __m512i& v) {
  const emulated::Lanes<int32_t> a = v;
  return emulated::each_float([&](int i) { return static_cast<float>(a.lane[i]); });
}
inline __m512 _mm512_castsi512_ps(const __m512i& v) { return _mm512_loadu_ps(v.byte); }
inline __m512i _mm512_cvtps_epi32(const __m512& v) {
  return emulated::each<int32_t>([&](int i) { return emulated::round(v.lane[i]); });
}

#include "emulated_floats.h"
