// int8 GEMM tiles in turn, for vectors with a u8 x s8 dot product and masks: while one tile's products
// are summed, results are made of the sums of the one before.
//
// Dot products and what makes results of sums use other parts of a core. Mixed they overlap; one after
// the other they do not, as more of either wait than a CPU looks through. Two low tiles take as many
// registers as a high one.
#pragma once

#include "int8_gemm_dot.h"

namespace fastinfer {
namespace {

// Of a tile's first k groups: results of the one before are made beside them.
constexpr int kTurnGroups = 4;

template <class Vec, int MR, int NV, bool kResidual, bool kPartial, bool kPlain>
__attribute__((noinline)) void tiles_in_turn(const GemmTiles& t, const Epilogue& e) {
  static_assert(MR * NV <= 4 * kTurnGroups, "four results a group");
  using Int = typename Vec::Int;
  const int64_t stride = t.row_stride;
  int64_t stride3 = 3 * stride;
  asm("" : "+r"(stride3));  // see int8_gemm_dot
  const ByteClamp clamp(e.out_zero_point, e.qmin, e.qmax);
  const uint8_t* ahead = t.ahead;
  Int acc[2][MR][NV];
  // The first tile has none before it: results of anything go nowhere.
  alignas(64) uint8_t nowhere[Vec::kBytes] = {};
  start_tile<Vec>(acc[1], e.bias);
  PanelPlaces before(e);
  before.out = nowhere;
  before.residual = nowhere;
  before.ldc = 0;
  PanelPlaces here(e);

  const auto finish = [&]<int kGroup>(const Int (&sums)[MR][NV]) __attribute__((always_inline)) {
    if constexpr (kGroup * 4 < MR * NV) {
      store_four<Vec, MR, NV, kResidual, kPartial, kPlain>(sums, kGroup * 4, before, clamp);
    }
  };
  const auto tile = [&](const uint8_t* a, Int(&now)[MR][NV], const Int(&last)[MR][NV])
                        __attribute__((always_inline)) {
    const uint8_t* base[4];
    const auto* w = static_cast<const int8_t*>(t.weight);
    start_tile<Vec>(now, e.bias);
    const auto step = [&](int i) __attribute__((always_inline)) {
      dot_group<Vec>(now, base, stride, stride3, w, i);
    };
    const auto next = [&](int groups) __attribute__((always_inline)) {
      w += groups * NV * Vec::kBytes;
#pragma GCC unroll 4
      for (int i = 0; i < 4; i++) base[i] += groups * 4;
    };
    for (int run = 0; run < t.runs; run++) {
      base[0] = a + t.offsets[run];
#pragma GCC unroll 4
      for (int i = 1; i < 4; i++) base[i] = base[0] + i * 4 * stride;
      int k = t.singles;
      if (run == 0) {
        step(0);
        finish.template operator()<0>(last);
        step(1);
        finish.template operator()<1>(last);
        step(2);
        finish.template operator()<2>(last);
        step(3);
        finish.template operator()<3>(last);
        next(kTurnGroups);
        fetch_ahead(t, ahead);
        k -= kTurnGroups;
      }
      for (; k >= 4; k -= 4) {
        step(0);
        step(1);
        step(2);
        step(3);
        next(4);
        fetch_ahead(t, ahead);
      }
      for (; k > 0; k--) {
        step(0);
        next(1);
      }
    }
    before = here;
    here.advance(MR);
  };

  int64_t done = 0;
  const int64_t all = t.tiles * t.lines;
  const uint8_t* a = t.a;
  int64_t left = t.tiles;  // of the line
  const auto advance = [&] {
    done++;
    a += MR * stride;
    if (--left > 0) return;
    left = t.tiles;
    a += t.line_step - t.tiles * MR * stride;
  };
  const auto finish_all = [&](const Int(&sums)[MR][NV]) __attribute__((always_inline)) {
    finish.template operator()<0>(sums);
    finish.template operator()<1>(sums);
    finish.template operator()<2>(sums);
    finish.template operator()<3>(sums);
  };
  while (true) {
    tile(a, acc[0], acc[1]);
    advance();
    if (done == all) return finish_all(acc[0]);
    tile(a, acc[1], acc[0]);
    advance();
    if (done == all) return finish_all(acc[1]);
  }
}

template <class Vec, int MR, int NV, bool kPartial, bool kPlain>
inline void turns_with_residual(const GemmTiles& t, const Epilogue& e) {
  if (e.residual_u8 != nullptr) return tiles_in_turn<Vec, MR, NV, true, kPartial, kPlain>(t, e);
  tiles_in_turn<Vec, MR, NV, false, kPartial, kPlain>(t, e);
}

// In turn where that is possible and pays: uint8 results of several tiles.
template <class Vec, int MR, int NV>
void int8_gemm_turns(const GemmTiles& t, const Epilogue& e) {
  if (e.kind != EpilogueKind::kUint8 || e.unbounded || t.tiles * t.lines < 2 ||
      t.singles < kTurnGroups || t.run_weights != nullptr) {
    return int8_gemm_dot<Vec, MR, NV>(t, e);
  }
  const bool is_plain = ByteClamp(e.out_zero_point, e.qmin, e.qmax).is_plain;
  if (e.n_valid < NV * Vec::kLanes) return turns_with_residual<Vec, MR, NV, true, false>(t, e);
  if (is_plain) return turns_with_residual<Vec, MR, NV, false, true>(t, e);
  turns_with_residual<Vec, MR, NV, false, false>(t, e);
}

// Of the heights 2 to the number of R and one, those of kLeastTurnRows to kMostTurnRows in turn.
template <class Vec, int NV, int R>
constexpr GemmKernel turn_kernel() {
  if constexpr (R >= kLeastTurnRows && R <= kMostTurnRows) {
    return int8_gemm_turns<Vec, R, NV>;
  } else {
    return int8_gemm_dot<Vec, R, NV>;
  }
}

template <class Vec, int NV, int... R>
constexpr GemmKernels turn_kernels(std::integer_sequence<int, R...>) {
  return {1 + sizeof...(R), {int8_gemm_row<Vec, NV>, turn_kernel<Vec, NV, R + 2>()...},
          /*takes_turns=*/true};
}

}  // namespace
}  // namespace fastinfer
