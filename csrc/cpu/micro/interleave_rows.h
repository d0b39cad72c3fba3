// Three planes of bytes into pixels of three channels.
#pragma once

#if defined(__SSSE3__)
#include <immintrin.h>
#endif

#include <cstdint>

namespace fastinfer {
namespace {

inline void interleave3_bytes(const uint8_t* planes, int64_t apart, int64_t n, uint8_t* out) {
  for (int64_t i = 0; i < n; i++) {
    for (int64_t c = 0; c < 3; c++) out[3 * i + c] = planes[c * apart + i];
  }
}

#if defined(__SSSE3__)

// 16 pixels at a time. Byte j of a pixel's three vectors is channel j % 3 of pixel
// j / 3; a shuffle makes 0 of what it has from another channel.
inline void interleave3_rows(const uint8_t* planes, int64_t apart, int64_t n, uint8_t* out) {
  struct Places {
    alignas(16) int8_t of[3][3][16];  // [channel][vector]
  };
  static constexpr Places kPlaces = [] {
    Places places{};
    for (int c = 0; c < 3; c++) {
      for (int j = 0; j < 48; j++) {
        places.of[c][j / 16][j % 16] = static_cast<int8_t>(j % 3 == c ? j / 3 : -1);
      }
    }
    return places;
  }();
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
#pragma GCC unroll 3
    for (int v = 0; v < 3; v++) {
      __m128i all = _mm_setzero_si128();
#pragma GCC unroll 3
      for (int c = 0; c < 3; c++) {
        const auto* from = reinterpret_cast<const __m128i*>(planes + c * apart + i);
        const auto* place = reinterpret_cast<const __m128i*>(kPlaces.of[c][v]);
        const __m128i x = _mm_shuffle_epi8(_mm_loadu_si128(from), _mm_load_si128(place));
        all = _mm_or_si128(all, x);
      }
      _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 3 * i + 16 * v), all);
    }
  }
  interleave3_bytes(planes + i, apart, n - i, out + 3 * i);
}

#else

// Where the tables are emulated: see docs/decisions/0003-emulated-avx512.md.
inline void interleave3_rows(const uint8_t* planes, int64_t apart, int64_t n, uint8_t* out) {
  interleave3_bytes(planes, apart, n, out);
}

#endif

}  // namespace
}  // namespace fastinfer
