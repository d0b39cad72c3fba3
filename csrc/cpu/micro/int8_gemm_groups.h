// int8 convolution in groups of few channels, for vectors with a u8 x s8 dot product.
//
// A vector of 16 results belongs to several groups, whose inputs are 16 neighbouring bytes of a pixel:
// each lane's are picked from those. A panel of one group alone would leave most lanes without work.
#pragma once

#include "store_tile.h"
#include "tiles.h"

namespace fastinfer {
namespace {

// For each of 16 results the bytes of k group `step` of its own group, which has `channels`.
template <class Vec>
inline typename Vec::Int picks_of_group(int channels, int step) {
  alignas(64) uint8_t picks[Vec::kBytes];
  for (int i = 0; i < Vec::kBytes; i++) {
    const int lane = i / 4;
    picks[i] = static_cast<uint8_t>(lane / channels * channels + step * 4 + i % 4);
  }
  return Vec::load(picks);
}

// weight: [run][step][lanes][4], a run being a tap of `kSteps` k groups.
template <class Vec, int MR, int kSteps>
inline __attribute__((always_inline)) void group_tiles(const GemmTiles& t,
                                                       const Epilogue& epilogue) {
  using Int = typename Vec::Int;
  const RowSteps steps(t.row_stride);
  Int pick[kSteps];
#pragma GCC unroll 4
  for (int s = 0; s < kSteps; s++) pick[s] = picks_of_group<Vec>(kSteps * 4, s);
  each_tile<MR>(t, epilogue, [&](const uint8_t* a, const Epilogue& e, const ByteClamp& clamp)
                                 __attribute__((always_inline)) {
    const auto* w = static_cast<const int8_t*>(t.weight);
    Int acc[MR][1];
    start_tile<Vec>(acc, e.bias);
    for (int run = 0; run < t.runs; run++, w += kSteps * Vec::kBytes) {
      const uint8_t* base[4];
      steps.set_bases(base, a + t.offsets[run]);
      Int b[kSteps];
#pragma GCC unroll 4
      for (int s = 0; s < kSteps; s++) b[s] = Vec::load(w + s * Vec::kBytes);
      each_row<MR>([&]<int R>() __attribute__((always_inline)) {
        const Int x = Vec::broadcast16(base[R / 4] + steps.at<R>());
#pragma GCC unroll 4
        for (int s = 0; s < kSteps; s++) {
          acc[R][0] = Vec::dot_u8s8(acc[R][0], Vec::pick_in_parts(x, pick[s]), b[s]);
        }
      });
    }
    store_tile<Vec, MR, 1>(acc, e, clamp);
  });
}

template <class Vec, int MR>
__attribute__((noinline)) void int8_gemm_groups(const GemmTiles& t, const Epilogue& epilogue) {
  if (t.singles == 1) {
    group_tiles<Vec, MR, 1>(t, epilogue);
  } else {
    group_tiles<Vec, MR, 2>(t, epilogue);
  }
}

// Every height up to the number of R.
template <class Vec, int... R>
constexpr GemmKernels group_kernels(std::integer_sequence<int, R...>) {
  return {sizeof...(R), {int8_gemm_groups<Vec, R + 1>...}};
}

}  // namespace
}  // namespace fastinfer
