// int8 GEMM tile over the products whose weight is not 0: a permute of bytes picks each channel's
// activations from a step of up to 64, then one dot product takes 4 of them in every lane.
//
// With two vectors of channels both use what was picked once.
#pragma once

#include "store_tile.h"
#include "tiles.h"

namespace fastinfer {
namespace {

// a: rows of bytes, of which whole steps are readable. weight: [quad][1 + NV][lanes][4], first what to
// pick; see pack_sparse.h.
template <class Vec, int MR, int NV>
__attribute__((noinline)) void int8_gemm_sparse(const GemmTiles& t, const Epilogue& epilogue) {
  using Int = typename Vec::Int;
  constexpr int kAhead = 1536;
  const int64_t stride = t.row_stride, step = t.step_quads * 4;
  each_tile<MR>(t, epilogue, [&](const uint8_t* a, const Epilogue& e, const ByteClamp& clamp)
                                 __attribute__((always_inline)) {
    const auto* w = static_cast<const int8_t*>(t.weight);
    const uint8_t* picks = t.picks;
    Int acc[MR][NV];
    start_tile<Vec>(acc, e.bias);
    for (int run = 0; run < t.runs; run++) {
      const uint8_t* at = a + t.offsets[run];
      for (int k = t.singles; k > 0; k -= t.step_quads, at += step) {
        int quads = *picks++;
        if (quads == 0) continue;
        Int x[MR];
        const uint8_t* row = at;
#pragma GCC unroll 16
        for (int r = 0; r < MR; r++, row += stride) x[r] = Vec::load_some(row, step);
        do {
          const Int pick = Vec::load(w);
          Int b[NV];
#pragma GCC unroll 4
          for (int v = 0; v < NV; v++) b[v] = Vec::load(w + (1 + v) * Vec::kBytes);
#pragma GCC unroll 4
          for (int v = 0; v <= NV; v++) __builtin_prefetch(w + kAhead + v * Vec::kBytes);
          w += (1 + NV) * Vec::kBytes;
#pragma GCC unroll 16
          for (int r = 0; r < MR; r++) {
            const Int picked = Vec::pick_bytes(x[r], pick);
#pragma GCC unroll 4
            for (int v = 0; v < NV; v++) acc[r][v] = Vec::dot_u8s8(acc[r][v], picked, b[v]);
          }
        } while (--quads > 0);
      }
    }
    store_tile<Vec, MR, NV>(acc, e, clamp);
  });
}

// Every height up to the number of R.
template <class Vec, int NV, int... R>
constexpr GemmKernels sparse_kernels(std::integer_sequence<int, R...>) {
  return {sizeof...(R), {int8_gemm_sparse<Vec, R + 1, NV>...}};
}

}  // namespace
}  // namespace fastinfer
