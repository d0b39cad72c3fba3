// AVX-512 with VNNI and VBMI as the Vec the kernel templates are written for.
#pragma once

#include "vec_avx512.h"

namespace fastinfer {
namespace {

struct VecAvx512Vnni : VecAvx512 {
  static Int dot_u8s8(Int acc, Int u8, Int s8) { return _mm512_dpbusd_epi32(acc, u8, s8); }

  // table[x] for 64 bytes: two 128-entry permutes, the top bit of x chooses between them.
  static Int lookup(Int x, const Int (&table)[4]) {
    const Int low = _mm512_permutex2var_epi8(table[0], x, table[1]);
    const Int high = _mm512_permutex2var_epi8(table[2], x, table[3]);
    return _mm512_mask_blend_epi8(_mm512_movepi8_mask(x), low, high);
  }
};

}  // namespace
}  // namespace fastinfer
