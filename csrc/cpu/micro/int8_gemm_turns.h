// int8 GEMM tiles in turn, for vectors with a u8 x s8 dot product and masks.
#pragma once

#include "int8_gemm_dot.h"
#include "turns.h"

namespace fastinfer {
namespace {

template <class Vec, int MR, int NV>
struct DotTurns {
  template <bool kResidual, bool kPartial, bool kPlain>
  static __attribute__((noinline)) void run(const GemmTiles& t, const Epilogue& e) {
    const RowSteps steps(t.row_stride);
    const uint8_t* ahead = t.ahead;
    tiles_in_turn<Vec, MR, NV, kResidual, kPartial, kPlain>(
        t, e, [&](const uint8_t* a, typename Vec::Int(&sums)[MR][NV], const auto& finish)
                  __attribute__((always_inline)) {
          dot_products<Vec, true>(t, steps, a, sums, ahead, finish);
        });
  }
};

template <class Vec, int MR, int NV>
void int8_gemm_turns(const GemmTiles& t, const Epilogue& e) {
  const bool has_room = t.singles >= kMostFours;
  if (!has_room || !run_in_turn<Vec, NV, DotTurns<Vec, MR, NV>>(t, e)) {
    int8_gemm_dot<Vec, MR, NV>(t, e);
  }
}

template <class Vec, int R>
constexpr GemmKernel dot_or_turns() {
  if constexpr (R >= kLeastTurnRows && R <= kMostTurnRows) {
    return int8_gemm_turns<Vec, R, 2>;
  } else {
    return int8_gemm_dot<Vec, R, 2>;
  }
}

// Every height up to the number of R and one.
template <class Vec, int... R>
constexpr GemmKernels turn_kernels(std::integer_sequence<int, R...>) {
  return {1 + sizeof...(R), {int8_gemm_row<Vec, 2>, dot_or_turns<Vec, R + 2>()...}, kMostTurnRows};
}

}  // namespace
}  // namespace fastinfer
