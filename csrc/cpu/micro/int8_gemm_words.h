// int8 GEMM tile for vectors without a dot-product instruction, both factors widened to 16 bits.
//
// vpmaddwd multiplies int16 pairs and adds them into int32, so it is exact for any weights. It takes
// 4 instructions for 32 products of a 256-bit vector where a pair of int8_gemm_pairs.h takes 5 for
// 64, but no weight is split, a broadcast serves NV vectors, and results leave in whole rows: it
// wins where K is small. docs/layouts.md has the measured costs.
#pragma once

#include "store_tile.h"
#include "tiles.h"

namespace fastinfer {
namespace {

// a: rows of int16. weight: [k / 2][NV * lanes][2] int16; `singles` counts groups of 4 k's.
template <class Vec, int MR, int NV>
__attribute__((noinline)) void int8_gemm_words(const GemmTiles& t, const Epilogue& epilogue) {
  static_assert(MR <= 12, "three bases reach twelve rows");
  using Int = typename Vec::Int;
  const RowSteps steps(t.row_stride);
  each_tile<MR>(t, epilogue, [&](const uint8_t* a, const Epilogue& e, const ByteClamp& clamp)
                                 __attribute__((always_inline)) {
    const uint8_t* base[3];
    steps.set_bases(base, a);
    const auto* w = static_cast<const uint8_t*>(t.weight);
    Int acc[MR][NV];
    start_tile<Vec>(acc, e.bias);
    // Not unrolled: gcc would move the second step's loads up and spill.
    for (int k = 2 * t.singles; k > 0; k--) {
      Int b[NV];
#pragma GCC unroll 4
      for (int v = 0; v < NV; v++) b[v] = Vec::load(w + v * Vec::kBytes);
      each_row<MR>([&]<int R>() __attribute__((always_inline)) {
        const Int x = Vec::broadcast4(base[R / 4] + steps.at<R>());
#pragma GCC unroll 4
        for (int v = 0; v < NV; v++) {
          acc[R][v] = Vec::add32(acc[R][v], Vec::mul16_add32(x, b[v]));
        }
      });
      w += NV * Vec::kBytes;
      base[0] += 4;
      base[1] += 4;
      base[2] += 4;
    }
    store_tile<Vec, MR, NV>(acc, e, clamp);
  });
}

// Every height up to the number of R.
template <class Vec, int NV, int... R>
constexpr GemmKernels words_kernels(std::integer_sequence<int, R...>) {
  return {sizeof...(R), {int8_gemm_words<Vec, R + 1, NV>...}};
}

}  // namespace
}  // namespace fastinfer
