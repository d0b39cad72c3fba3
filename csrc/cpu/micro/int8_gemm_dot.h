// int8 GEMM tile for vectors with a u8 x s8 dot product (VNNI): one instruction for 64 products.
#pragma once

#include "store_tile.h"
#include "tiles.h"

namespace fastinfer {
namespace {

// a: chunks [ceil(k/64)][MR][64], whole chunks readable. weight: [k group][NV * lanes][4].
template <class Vec, int MR, int NV>
__attribute__((noinline)) void int8_gemm_dot(const GemmTiles& t, const Epilogue& epilogue) {
  using Int = typename Vec::Int;
  each_tile<MR>(t, epilogue, [&](const uint8_t* a, const Epilogue& e, const ByteClamp& clamp)
                                 __attribute__((always_inline)) {
    const auto* w = static_cast<const int8_t*>(t.weight);
    Int acc[MR][NV];
    start_tile<Vec>(acc, e.bias);
    const auto step = [&](const uint8_t* p) __attribute__((always_inline)) {
      Int b[NV];
#pragma GCC unroll 4
      for (int v = 0; v < NV; v++) b[v] = Vec::load(w + v * Vec::kBytes);
#pragma GCC unroll 16
      for (int r = 0; r < MR; r++) {
        const Int x = Vec::broadcast4(p + r * 64);
#pragma GCC unroll 4
        for (int v = 0; v < NV; v++) acc[r][v] = Vec::dot_u8s8(acc[r][v], x, b[v]);
      }
      w += NV * Vec::kBytes;
    };
    for (int k = t.singles; k > 0; k -= 16) {
      const int here = k < 16 ? k : 16;
      const uint8_t* p = a;
      int i = 0;
      for (; i + 4 <= here; i += 4, p += 16) {
        step(p);
        step(p + 4);
        step(p + 8);
        step(p + 12);
      }
      for (; i < here; i++, p += 4) step(p);
      a += MR * 64;
    }
    store_tile<Vec, MR, NV>(acc, e, clamp);
  });
}

// Every height up to the number of R.
template <class Vec, int NV, int... R>
constexpr GemmKernels dot_kernels(std::integer_sequence<int, R...>) {
  return {sizeof...(R), {int8_gemm_dot<Vec, R + 1, NV>...}};
}

}  // namespace
}  // namespace fastinfer
