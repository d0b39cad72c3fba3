// Compares emulated_avx512.h with the CPU's AVX2: an instruction that works within lanes or within
// 128-bit parts does the same to each half of a 512-bit vector. Prints what differs; exits 1.
#include <emmintrin.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <iterator>
#include <limits>
#include <random>
#include <type_traits>

// First, and in a namespace: immintrin.h declares the real names.
namespace emulation {
#include "emulated_avx512.h"
}  // namespace emulation

#include <immintrin.h>

namespace {

namespace emu = emulation;
using Int = emu::__m512i;
using Float = emu::__m512;

struct Bytes {
  uint8_t byte[64];
};

// Bytes, numbers around what saturates or rounds, NaN, infinities and both zeros, mixed by lane.
Bytes random_bytes(std::mt19937& random) {
  constexpr float kFloats[] = {0.0f, -0.0f, 0.5f, 1.5f, -2.5f, 1e-40f, 3e9f, -3e9f,
                               2147483648.0f, -2147483648.0f, 2147483520.0f, 8388609.5f,
                               INFINITY, -INFINITY, NAN};
  constexpr uint8_t kExtremes[] = {0x00, 0x01, 0x7f, 0x80, 0x81, 0xff};
  Bytes out;
  for (int lane = 0; lane < 16; lane++) {
    uint8_t* to = out.byte + lane * 4;
    const uint32_t any = static_cast<uint32_t>(random());
    float number = static_cast<float>(random() % 80001) / 64.0f - 625.0f;
    switch (random() % 5) {
      case 0:
        std::memcpy(to, &any, 4);
        break;
      case 1:
        number = kFloats[random() % std::size(kFloats)];
        [[fallthrough]];
      case 2:
        std::memcpy(to, &number, 4);
        break;
      case 3:
        for (int i = 0; i < 4; i++) to[i] = kExtremes[random() % std::size(kExtremes)];
        break;
      default:  // int32 near the int16 range
        const int32_t near = static_cast<int32_t>(any % 140001) - 70000;
        std::memcpy(to, &near, 4);
    }
  }
  return out;
}

// A NaN may carry any payload.
bool equal_floats(const float (&a)[16], const float (&b)[16]) {
  for (int i = 0; i < 16; i++) {
    if (std::isnan(a[i]) != std::isnan(b[i])) return false;
    if (!std::isnan(a[i]) && std::memcmp(&a[i], &b[i], 4) != 0) return false;
  }
  return true;
}

// f: two Whole -> 512 bits, emulated. g: two Half -> 256 bits, by the CPU.
template <class Whole, class Half, class F, class G>
int check(const char* name, const F& f, const G& g) {
  constexpr bool kIsFloat = std::is_same_v<std::invoke_result_t<F, Whole, Whole>, Float>;
  std::mt19937 random(1);
  for (int trial = 0; trial < 20000; trial++) {
    const Bytes a = random_bytes(random), b = random_bytes(random);
    Whole wa, wb;
    std::memcpy(&wa, &a, 64);
    std::memcpy(&wb, &b, 64);
    const auto got = f(wa, wb);
    Bytes want;
    for (int at = 0; at < 64; at += 32) {
      Half ha, hb;
      std::memcpy(&ha, a.byte + at, 32);
      std::memcpy(&hb, b.byte + at, 32);
      const auto half = g(ha, hb);
      std::memcpy(want.byte + at, &half, 32);
    }
    float x[16], y[16];
    std::memcpy(x, &got, 64);
    std::memcpy(y, &want, 64);
    if (kIsFloat ? equal_floats(x, y) : std::memcmp(x, y, 64) == 0) continue;
    std::printf("%s differs\n", name);
    return 1;
  }
  return 0;
}

template <class F, class G>
int check_int(const char* name, const F& f, const G& g) {
  return check<Int, __m256i>(name, f, g);
}

template <class F, class G>
int check_float(const char* name, const F& f, const G& g) {
  return check<Float, __m256>(name, f, g);
}

// The four u8 x s8 products of each lane, exact in 16-bit factors.
__m256i dot(__m256i sum, __m256i a, __m256i b) {
  const __m256i a_even = _mm256_and_si256(a, _mm256_set1_epi16(255));
  const __m256i b_even = _mm256_srai_epi16(_mm256_slli_epi16(b, 8), 8);
  const __m256i even = _mm256_madd_epi16(a_even, b_even);
  const __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(a, 8), _mm256_srai_epi16(b, 8));
  return _mm256_add_epi32(sum, _mm256_add_epi32(even, odd));
}

}  // namespace

int main() {
  using I = __m256i;
  using F = __m256;
  int failures = 0;
  const auto ints = [&](auto name, auto f, auto g) { failures += check_int(name, f, g); };
  const auto floats = [&](auto name, auto f, auto g) { failures += check_float(name, f, g); };
  ints("add_epi16", [](Int a, Int b) { return emu::_mm512_add_epi16(a, b); },
       [](I a, I b) { return _mm256_add_epi16(a, b); });
  ints("sub_epi16", [](Int a, Int b) { return emu::_mm512_sub_epi16(a, b); },
       [](I a, I b) { return _mm256_sub_epi16(a, b); });
  ints("mullo_epi16", [](Int a, Int b) { return emu::_mm512_mullo_epi16(a, b); },
       [](I a, I b) { return _mm256_mullo_epi16(a, b); });
  ints("slli_epi16", [](Int a, Int) { return emu::_mm512_slli_epi16(a, 8); },
       [](I a, I) { return _mm256_slli_epi16(a, 8); });
  ints("srli_epi16", [](Int a, Int) { return emu::_mm512_srli_epi16(a, 8); },
       [](I a, I) { return _mm256_srli_epi16(a, 8); });
  ints("srai_epi16", [](Int a, Int) { return emu::_mm512_srai_epi16(a, 8); },
       [](I a, I) { return _mm256_srai_epi16(a, 8); });
  ints("adds_epi16", [](Int a, Int b) { return emu::_mm512_adds_epi16(a, b); },
       [](I a, I b) { return _mm256_adds_epi16(a, b); });
  ints("add_epi32", [](Int a, Int b) { return emu::_mm512_add_epi32(a, b); },
       [](I a, I b) { return _mm256_add_epi32(a, b); });
  ints("slli_epi32", [](Int a, Int) { return emu::_mm512_slli_epi32(a, 23); },
       [](I a, I) { return _mm256_slli_epi32(a, 23); });
  ints("srli_epi32", [](Int a, Int) { return emu::_mm512_srli_epi32(a, 24); },
       [](I a, I) { return _mm256_srli_epi32(a, 24); });
  ints("or_si512", [](Int a, Int b) { return emu::_mm512_or_si512(a, b); },
       [](I a, I b) { return _mm256_or_si256(a, b); });
  ints("srai_epi32", [](Int a, Int) { return emu::_mm512_srai_epi32(a, 1); },
       [](I a, I) { return _mm256_srai_epi32(a, 1); });
  ints("sub_epi32", [](Int a, Int b) { return emu::_mm512_sub_epi32(a, b); },
       [](I a, I b) { return _mm256_sub_epi32(a, b); });
  ints("mullo_epi32", [](Int a, Int b) { return emu::_mm512_mullo_epi32(a, b); },
       [](I a, I b) { return _mm256_mullo_epi32(a, b); });
  ints("max_epu8", [](Int a, Int b) { return emu::_mm512_max_epu8(a, b); },
       [](I a, I b) { return _mm256_max_epu8(a, b); });
  ints("min_epu8", [](Int a, Int b) { return emu::_mm512_min_epu8(a, b); },
       [](I a, I b) { return _mm256_min_epu8(a, b); });
  ints("maddubs_epi16", [](Int a, Int b) { return emu::_mm512_maddubs_epi16(a, b); },
       [](I a, I b) { return _mm256_maddubs_epi16(a, b); });
  ints("madd_epi16", [](Int a, Int b) { return emu::_mm512_madd_epi16(a, b); },
       [](I a, I b) { return _mm256_madd_epi16(a, b); });
  ints("dpwssd_epi32", [](Int a, Int b) { return emu::_mm512_dpwssd_epi32(b, a, b); },
       [](I a, I b) { return _mm256_add_epi32(b, _mm256_madd_epi16(a, b)); });
  ints("dpbusd_epi32", [](Int a, Int b) { return emu::_mm512_dpbusd_epi32(b, a, b); },
       [](I a, I b) { return dot(b, a, b); });
  ints("unpacklo_epi8", [](Int a, Int b) { return emu::_mm512_unpacklo_epi8(a, b); },
       [](I a, I b) { return _mm256_unpacklo_epi8(a, b); });
  ints("unpackhi_epi8", [](Int a, Int b) { return emu::_mm512_unpackhi_epi8(a, b); },
       [](I a, I b) { return _mm256_unpackhi_epi8(a, b); });
  ints("unpacklo_epi16", [](Int a, Int b) { return emu::_mm512_unpacklo_epi16(a, b); },
       [](I a, I b) { return _mm256_unpacklo_epi16(a, b); });
  ints("unpackhi_epi16", [](Int a, Int b) { return emu::_mm512_unpackhi_epi16(a, b); },
       [](I a, I b) { return _mm256_unpackhi_epi16(a, b); });
  ints("packs_epi32", [](Int a, Int b) { return emu::_mm512_packs_epi32(a, b); },
       [](I a, I b) { return _mm256_packs_epi32(a, b); });
  ints("packus_epi16", [](Int a, Int b) { return emu::_mm512_packus_epi16(a, b); },
       [](I a, I b) { return _mm256_packus_epi16(a, b); });
  ints("mask_blend_epi8 of movepi8_mask",
       [](Int a, Int b) { return emu::_mm512_mask_blend_epi8(emu::_mm512_movepi8_mask(b), a, b); },
       [](I a, I b) { return _mm256_blendv_epi8(a, b, b); });
  ints("cvtepi32_ps", [](Int a, Int) { return emu::_mm512_cvtepi32_ps(a); },
       [](I a, I) { return _mm256_cvtepi32_ps(a); });
  floats("cvtps_epi32", [](Float a, Float) { return emu::_mm512_cvtps_epi32(a); },
         [](F a, F) { return _mm256_cvtps_epi32(a); });
  floats("add_ps", [](Float a, Float b) { return emu::_mm512_add_ps(a, b); },
         [](F a, F b) { return _mm256_add_ps(a, b); });
  floats("sub_ps", [](Float a, Float b) { return emu::_mm512_sub_ps(a, b); },
         [](F a, F b) { return _mm256_sub_ps(a, b); });
  floats("mul_ps", [](Float a, Float b) { return emu::_mm512_mul_ps(a, b); },
         [](F a, F b) { return _mm256_mul_ps(a, b); });
  floats("fmadd_ps", [](Float a, Float b) { return emu::_mm512_fmadd_ps(a, b, a); },
         [](F a, F b) { return _mm256_fmadd_ps(a, b, a); });
  floats("min_ps", [](Float a, Float b) { return emu::_mm512_min_ps(a, b); },
         [](F a, F b) { return _mm256_min_ps(a, b); });
  floats("max_ps", [](Float a, Float b) { return emu::_mm512_max_ps(a, b); },
         [](F a, F b) { return _mm256_max_ps(a, b); });
  std::printf("%d instructions differ\n", failures);
  return failures == 0 ? 0 : 1;
}
