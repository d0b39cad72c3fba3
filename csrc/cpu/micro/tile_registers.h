// The eight tile registers of AMX: 16 rows of 64 bytes each, and their u8 x s8 dot product.
//
// The compiler's own intrinsics say neither that a load reads memory nor that a configuration is read
// whole, and gcc 12 then moves stores past them: hence these.
#pragma once

#ifdef FASTINFER_EMULATED_AVX512
#include "emulated_amx.h"
#endif

#include <cstdint>

namespace fastinfer {
namespace {

struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};
static_assert(sizeof(TileConfig) == 64);

#ifdef FASTINFER_EMULATED_AVX512
using TileRegisters = emulated::Tiles;
#else
struct TileRegisters {
  // Sets every register to zero.
  static void configure(const TileConfig& config) {
    asm volatile("ldtilecfg %0" : : "m"(config) : "memory");
  }
  // Gives the registers up, so that the system need not save them.
  static void release() { asm volatile("tilerelease"); }

  template <int T>
  static __attribute__((always_inline)) void load(const void* p, int64_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(p), "r"(stride), "i"(T) : "memory");
  }
  // The same of bytes that are not soon wanted again: they stay out of L1.
  template <int T>
  static __attribute__((always_inline)) void load_past_l1(const void* p, int64_t stride) {
    asm volatile("tileloaddt1 (%0,%1,1), %%tmm%c2" : : "r"(p), "r"(stride), "i"(T) : "memory");
  }
  template <int T>
  static __attribute__((always_inline)) void store(void* p, int64_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(p), "r"(stride), "i"(T) : "memory");
  }
  // Register `Acc`, int32, plus the uint8 rows of `A` times the int8 quads of `B`.
  template <int Acc, int A, int B>
  static __attribute__((always_inline)) void dot_u8s8() {
    asm volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(Acc), "i"(A), "i"(B));
  }
};
#endif

}  // namespace
}  // namespace fastinfer
