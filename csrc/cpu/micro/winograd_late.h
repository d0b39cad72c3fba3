// Winograd's products with few tiles, by which a weight is multiplied only a few times once it is in the domain.
//
// Half of the way there is made as it is multiplied: of a line's three columns of taps two to five operations make
// the weights of two positions, for which the units that do not multiply have time. So half as many vectors are
// written to L2, and three are read where two were. Decision 31 has what it gains.
#pragma once

#include <utility>

#include "winograd.h"

namespace fastinfer {
namespace {

// kCount positions of kWinogradPairs[kPair], MR rows of each.
template <class Form, int kPair, int kCount, int MR, int NV>
__attribute__((noinline)) void winograd_late_products(const WinogradLateProducts& p) {
  using Vec = typename Form::Vec;
  using Int = typename Vec::Int;
  constexpr int kBases = (MR + 3) / 4, kBlockQuads = Vec::kBytes / 4, kTaps = 3;
  const RowSteps steps(p.row_bytes);
  Int acc[kCount][MR][NV];
  const uint8_t* base[kCount][kBases];
#pragma GCC unroll 2
  for (int i = 0; i < kCount; i++) {
    steps.set_bases(base[i], reinterpret_cast<const uint8_t*>(p.rows[i]));
    winograd_start<Vec>(acc[i]);
  }
  const auto* w = reinterpret_cast<const uint8_t*>(p.weight);
  const auto step = [&]() __attribute__((always_inline)) {
    Int t[NV][2];
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) {
      Int g[kTaps];
#pragma GCC unroll 3
      for (int x = 0; x < kTaps; x++) g[x] = Vec::load(w + (v * kTaps + x) * Vec::kBytes);
      winograd_weight_pair<Vec, kPair>(winograd_times<Vec>(g), t[v]);
      // Line by line: gcc would leave the six of them a loop.
#pragma GCC unroll 3
      for (int x = 0; x < kTaps; x++) {
        prefetch<Cache::kL1>(w + kWeightsAhead + (v * kTaps + x) * Vec::kBytes, 1);
      }
    }
    w += NV * kTaps * Vec::kBytes;
#pragma GCC unroll 2
    for (int i = 0; i < kCount; i++) {
      each_row<MR>([&]<int R>() __attribute__((always_inline)) {
        const Int x = Vec::broadcast4(base[i][R / 4] + steps.template at<R>());
#pragma GCC unroll 4
        for (int v = 0; v < NV; v++) acc[i][R][v] = Vec::dot_s16s16(acc[i][R][v], x, t[v][i]);
      });
    }
  };
  const auto next = [&](int64_t bytes) __attribute__((always_inline)) {
#pragma GCC unroll 2
    for (int i = 0; i < kCount; i++) {
#pragma GCC unroll 2
      for (int b = 0; b < kBases; b++) base[i][b] += bytes;
    }
  };
  // Even channels, then odd ones, as WinogradBytes has them.
  for (int64_t left = p.quads; left > 0; left -= kBlockQuads) {
    const int64_t quads = left < kBlockQuads ? left : kBlockQuads;
    // Not unrolled: gcc would move the second step's loads up and spill.
    int64_t move = Vec::kBytes;
    for (int64_t k = 2 * quads; k > 0; k--) {
      step();
      next(move);
      move = 4 - move;
    }
    next(2 * Vec::kBytes - 4 * quads);
  }
#pragma GCC unroll 2
  for (int i = 0; i < kCount; i++) winograd_store<Vec>(acc[i], p.sums[i]);
}

template <class Form, int NV, int... R>
constexpr WinogradLate winograd_late(std::integer_sequence<int, R...>) {
  static_assert(sizeof...(R) == kWinogradLateRows);
  return {winograd_weights<Form, NV, true>,
          {{winograd_late_products<Form, 0, 2, R + 1, NV>...},
           {winograd_late_products<Form, 1, 2, R + 1, NV>...},
           {winograd_late_products<Form, 2, 2, R + 1, NV>...},
           {winograd_late_products<Form, 2, 1, R + 1, NV>...}}};
}

}  // namespace
}  // namespace fastinfer
