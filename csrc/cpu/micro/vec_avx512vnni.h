// AVX-512 with VNNI and VBMI as the Vec the kernel templates are written for.
#pragma once

#include "vec_avx512.h"

namespace fastinfer {
namespace {

struct VecAvx512Vnni : VecAvx512 {
  static Int dot_u8s8(Int acc, Int u8, Int s8) { return _mm512_dpbusd_epi32(acc, u8, s8); }

  static Int dot_s16s16(Int acc, Int a, Int b) { return _mm512_dpwssd_epi32(acc, a, b); }

  // Of each two bytes the first or the second as int16.
  static Int even_bytes(Int v) { return _mm512_srli_epi16(_mm512_slli_epi16(v, 8), 8); }
  static Int odd_bytes(Int v) { return _mm512_srli_epi16(v, 8); }

  // Moves the bytes of each int32 up; those that leave it are lost.
  template <int kBytes>
  static Int bytes_up(Int v) {
    return _mm512_slli_epi32(v, 8 * kBytes);
  }
  // Byte `kByte` of each int32, alone.
  template <int kByte>
  static Int only_byte(Int v) {
    return _mm512_srli_epi32(_mm512_slli_epi32(v, 24 - 8 * kByte), 24);
  }
  static Int or_bits(Int a, Int b) { return _mm512_or_si512(a, b); }

  // Bytes where `mask` has a bit; others are not touched, and are those of `other`.
  static Int load_where(const uint8_t* x, uint64_t mask, Int other) {
    return _mm512_mask_loadu_epi8(other, mask, x);
  }

  static Int broadcast16(const uint8_t* x) {
    return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x)));
  }
  // Byte i is byte index[i] of its own 16.
  static Int pick_in_parts(Int v, Int index) { return _mm512_shuffle_epi8(v, index); }

  // 16 bytes each.
  static Int load_quarters(const uint8_t* a, const uint8_t* b, const uint8_t* c, const uint8_t* d) {
    const auto load = [](const uint8_t* p) __attribute__((always_inline)) {
      return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    };
    const Int two = _mm512_inserti32x4(broadcast16(a), load(b), 1);
    return _mm512_inserti32x4(_mm512_inserti32x4(two, load(c), 2), load(d), 3);
  }
  // Byte i is byte index[i] of a and b, of 128.
  static Int pick_of_two(Int a, Int b, Int index) { return _mm512_permutex2var_epi8(a, index, b); }

  // Byte i is byte index[i] of v, of 64.
  static Int pick_bytes(Int v, Int index) { return _mm512_permutexvar_epi8(index, v); }

  // table[x] for 64 bytes: two 128-entry permutes, the top bit of x chooses between them.
  static Int lookup(Int x, const Int (&table)[4]) {
    const Int low = _mm512_permutex2var_epi8(table[0], x, table[1]);
    const Int high = _mm512_permutex2var_epi8(table[2], x, table[3]);
    return _mm512_mask_blend_epi8(_mm512_movepi8_mask(x), low, high);
  }
};

}  // namespace
}  // namespace fastinfer
