// uint8 codes: bytes of words, as floats and back, and runs of them in memory.
#pragma once

#include <cstdint>

#include "rounding.h"

namespace fastinfer::cuda {

__device__ __forceinline__ uint32_t byte_of(uint32_t word, int i) { return word >> (8 * i) & 255u; }

// The low bytes of four words.
__device__ __forceinline__ uint32_t low_bytes(const uint32_t* words) {
  const uint32_t front = __byte_perm(words[0], words[1], 0x0040);
  const uint32_t back = __byte_perm(words[2], words[3], 0x0040);
  return __byte_perm(front, back, 0x5410);
}

// Byte i of a word less what `shift` has beyond 2^23, exactly: 2^23 + a byte is the byte in the low
// bits of 2^23's, so nothing is rounded; a conversion of a byte runs at a quarter of the rate.
constexpr float kCodeShift = 8388608.0f;

__device__ __forceinline__ float float_less(uint32_t word, int i, float shift) {
  return __fadd_rn(__uint_as_float(__byte_perm(word, 0x4B000000u, 0x7440 + i)), -shift);
}

// Byte i as a float.
__device__ __forceinline__ float float_of(uint32_t word, int i) {
  return float_less(word, i, kCodeShift);
}

// Four codes: clamped, rounded half to even, moved by the zero point. NaN becomes `high`.
__device__ __forceinline__ uint32_t codes_of(const float (&f)[4], const Rounding& r) {
  uint32_t rounded[4];
#pragma unroll
  for (int i = 0; i < 4; i++) {
    // Adding 1.5 * 2^23, an even number, rounds half to even: the integer is in the low bits.
    const float bounded = fmaxf(fminf(f[i], r.high), r.low);
    rounded[i] = __float_as_uint(__fadd_rn(bounded, 12582912.0f));
  }
  return __vadd4(low_bytes(rounded), r.zero_points);
}

// kBytes side by side, aligned to as many: 16, 8, 4 or 1.
template <int kBytes>
struct Codes {
  static_assert(kBytes == 16 || kBytes == 8 || kBytes == 4 || kBytes == 1);
  static constexpr int kWords = kBytes < 4 ? 1 : kBytes / 4;
  uint32_t words[kWords];

  __device__ __forceinline__ void load(const uint8_t* from) {
    if constexpr (kBytes == 16) {
      const uint4 v = __ldg(reinterpret_cast<const uint4*>(from));
      words[0] = v.x, words[1] = v.y, words[2] = v.z, words[3] = v.w;
    } else if constexpr (kBytes == 8) {
      const uint2 v = __ldg(reinterpret_cast<const uint2*>(from));
      words[0] = v.x, words[1] = v.y;
    } else if constexpr (kBytes == 4) {
      words[0] = __ldg(reinterpret_cast<const uint32_t*>(from));
    } else {
      words[0] = __ldg(from);
    }
  }

  __device__ __forceinline__ void store(uint8_t* to) const {
    if constexpr (kBytes == 16) {
      *reinterpret_cast<uint4*>(to) = {words[0], words[1], words[2], words[3]};
    } else if constexpr (kBytes == 8) {
      *reinterpret_cast<uint2*>(to) = {words[0], words[1]};
    } else if constexpr (kBytes == 4) {
      *reinterpret_cast<uint32_t*>(to) = words[0];
    } else {
      *to = static_cast<uint8_t>(words[0]);
    }
  }

  // The first `valid` bytes, from and to any address.
  __device__ __forceinline__ void load_some(const uint8_t* from, int valid) {
#pragma unroll
    for (int i = 0; i < kBytes; i++) {
      if (i % 4 == 0) words[i / 4] = 0;
      if (i < valid) words[i / 4] |= static_cast<uint32_t>(__ldg(from + i)) << (8 * (i % 4));
    }
  }

  __device__ __forceinline__ void store_some(uint8_t* to, int valid) const {
#pragma unroll
    for (int i = 0; i < kBytes; i++) {
      if (i < valid) to[i] = static_cast<uint8_t>(byte_of(words[i / 4], i % 4));
    }
  }
};

// The table's byte for each of a word's.
__device__ __forceinline__ uint32_t look_up_word(const uint8_t* table, uint32_t word) {
  uint32_t found[4];
#pragma unroll
  for (int i = 0; i < 4; i++) found[i] = __ldg(table + byte_of(word, i));
  return low_bytes(found);
}

}  // namespace fastinfer::cuda
