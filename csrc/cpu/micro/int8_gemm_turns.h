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
    using Int = typename Vec::Int;
    const int64_t stride = t.row_stride;
    int64_t stride3 = 3 * stride;
    asm("" : "+r"(stride3));  // see int8_gemm_dot
    const uint8_t* ahead = t.ahead;
    const auto products = [&](const uint8_t* a, Int(&sums)[MR][NV], const auto& finish)
                              __attribute__((always_inline)) {
      const uint8_t* base[4];
      const auto* w = static_cast<const int8_t*>(t.weight);
      const auto step = [&](int i) __attribute__((always_inline)) {
        dot_group<Vec>(sums, base, stride, stride3, w, i);
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
          finish.template operator()<0>();
          step(1);
          finish.template operator()<1>();
          step(2);
          finish.template operator()<2>();
          step(3);
          finish.template operator()<3>();
          next(4);
          fetch_ahead(t, ahead);
          k -= 4;
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
    };
    tiles_in_turn<Vec, MR, NV, kResidual, kPartial, kPlain>(t, e, products);
  }
};

template <class Vec, int MR, int NV>
void int8_gemm_turns(const GemmTiles& t, const Epilogue& e) {
  const bool is_short = t.singles < 4 || t.run_weights != nullptr;
  if (is_short || !run_in_turn<Vec, NV, DotTurns<Vec, MR, NV>>(t, e)) {
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
