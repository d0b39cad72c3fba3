// int8 GEMM tile for vectors with a u8 x s8 dot product (VNNI): one instruction for 64 products.
#pragma once

#include "store_tile.h"
#include "tiles.h"

namespace fastinfer {
namespace {

// Adds a tile's products to its sums. beside.operator()<0>() to <3>(): called after each of the first four
// k groups, where kBeside; a run has as many then. `ahead` moves on by what was brought near.
template <class Vec, bool kBeside, int MR, int NV, class Beside>
inline __attribute__((always_inline)) void dot_products(const GemmTiles& t, const RowSteps& steps,
                                                        const uint8_t* a,
                                                        typename Vec::Int (&sums)[MR][NV],
                                                        const uint8_t*& ahead,
                                                        const Beside& beside) {
  static_assert(MR <= 16, "four bases reach sixteen rows");
  using Int = typename Vec::Int;
  const uint8_t* base[4];
  const auto* w = static_cast<const int8_t*>(t.weight);
  // Group i of the ones the bases point at.
  const auto group = [&](int i) __attribute__((always_inline)) {
    Int b[NV];
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) b[v] = Vec::load(w + (i * NV + v) * Vec::kBytes);
    each_row<MR>([&]<int R>() __attribute__((always_inline)) {
      const Int x = Vec::broadcast4(base[R / 4] + steps.template at<R>() + i * 4);
#pragma GCC unroll 4
      for (int v = 0; v < NV; v++) sums[R][v] = Vec::dot_u8s8(sums[R][v], x, b[v]);
    });
  };
  const auto next = [&](int groups) __attribute__((always_inline)) {
    w += groups * NV * Vec::kBytes;
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) base[i] += groups * 4;
  };
  for (int run = 0; run < t.runs; run++) {
    steps.set_bases(base, a + t.offsets[run]);
    if (t.run_weights != nullptr) {
      w = static_cast<const int8_t*>(t.weight) + t.run_weights[run];
    }
    int k = t.singles;
    if (kBeside && run == 0) {
      group(0);
      beside.template operator()<0>();
      group(1);
      beside.template operator()<1>();
      group(2);
      beside.template operator()<2>();
      group(3);
      beside.template operator()<3>();
      next(4);
      fetch_ahead(t, ahead);
      k -= 4;
    }
    for (; k >= 4; k -= 4) {
      group(0);
      group(1);
      group(2);
      group(3);
      next(4);
      fetch_ahead(t, ahead);
    }
    for (; k > 0; k--) {
      group(0);
      next(1);
    }
  }
}

// a: rows of bytes; of each run whole groups of 4 k's are readable. weight: [quad][NV * lanes][4].
template <class Vec, int MR, int NV>
__attribute__((noinline)) void int8_gemm_dot(const GemmTiles& t, const Epilogue& epilogue) {
  const RowSteps steps(t.row_stride);
  const uint8_t* ahead = t.ahead;
  each_tile<MR>(t, epilogue, [&](const uint8_t* a, const Epilogue& e, const ByteClamp& clamp)
                                 __attribute__((always_inline)) {
    typename Vec::Int acc[MR][NV];
    start_tile<Vec>(acc, e.bias);
    dot_products<Vec, false>(t, steps, a, acc, ahead, []<int>() {});
    store_tile<Vec, MR, NV>(acc, e, clamp);
  });
}

// A single row, whose time is its weights': both halves of a run at once. The CPU's prefetchers
// follow two streams further ahead than one, and twice the sums wait half as long for one another.
template <class Vec, int NV>
__attribute__((noinline)) void int8_gemm_row(const GemmTiles& t, const Epilogue& epilogue) {
  using Int = typename Vec::Int;
  each_tile<1>(t, epilogue, [&](const uint8_t* a, const Epilogue& e, const ByteClamp& clamp)
                                __attribute__((always_inline)) {
    const auto* w = static_cast<const int8_t*>(t.weight);
    Int acc[1][NV], second[NV];
    start_tile<Vec>(acc, e.bias);
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) second[v] = Vec::zero();
    // One group of 4 k's into NV sums.
    const auto add = [](Int* sums, const uint8_t* x, const int8_t* from)
                         __attribute__((always_inline)) {
      const Int four = Vec::broadcast4(x);
#pragma GCC unroll 4
      for (int v = 0; v < NV; v++) {
        sums[v] = Vec::dot_u8s8(sums[v], four, Vec::load(from + v * Vec::kBytes));
      }
    };
    constexpr int64_t kGroup = NV * Vec::kBytes;
    for (int run = 0; run < t.runs; run++) {
      const uint8_t* x = a + t.offsets[run];
      const int64_t half = t.singles / 2;
      // Likely, so that all products stand together, without the epilogue's code in between.
      if (t.singles % 2 != 0) [[likely]] {
        add(acc[0], x, w);
        x += 4;
        w += kGroup;
      }
#pragma GCC unroll 4
      for (int64_t i = 0; i < half; i++) {
        add(acc[0], x + i * 4, w + i * kGroup);
        add(second, x + (half + i) * 4, w + (half + i) * kGroup);
      }
      w += 2 * half * kGroup;
    }
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) acc[0][v] = Vec::add32(acc[0][v], second[v]);
    store_tile<Vec, 1, NV>(acc, e, clamp);
  });
}

// Every height up to the number of R and one.
template <class Vec, int NV, int... R>
constexpr GemmKernels dot_kernels(std::integer_sequence<int, R...>) {
  return {1 + sizeof...(R), {int8_gemm_row<Vec, NV>, int8_gemm_dot<Vec, R + 2, NV>...}};
}

}  // namespace
}  // namespace fastinfer
