// int8 GEMM tile over the products whose weight is not 0: a permute of bytes picks each channel's
// activations from a step of up to 64, then one dot product takes 4 of them in every lane.
//
// With two vectors of channels both use what was picked once.
#pragma once

#include "store_tile.h"
#include "tiles.h"
#include "turns.h"

namespace fastinfer {
namespace {

// Bytes between the weights in use and those asked for.
constexpr int kSparseAhead = 1536;

// What a quad picks and its weights. Asks for those of later ones, and moves on.
template <class Vec, int NV>
struct SparseQuad {
  typename Vec::Int pick, weight[NV];

  inline __attribute__((always_inline)) explicit SparseQuad(const int8_t*& w)
      : pick(Vec::load(w)) {
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) weight[v] = Vec::load(w + (1 + v) * Vec::kBytes);
#pragma GCC unroll 4
    for (int v = 0; v <= NV; v++) __builtin_prefetch(w + kSparseAhead + v * Vec::kBytes);
    w += (1 + NV) * Vec::kBytes;
  }
  // The products of a row's step.
  inline __attribute__((always_inline)) void add(typename Vec::Int (&sums)[NV],
                                                 typename Vec::Int x) const {
    const auto picked = Vec::pick_bytes(x, pick);
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) sums[v] = Vec::dot_u8s8(sums[v], picked, weight[v]);
  }
};

// a: rows of bytes, of which whole steps are readable. weight: [quad][1 + NV][lanes][4], first what to
// pick; see pack_sparse.h.
template <class Vec, int MR, int NV>
__attribute__((noinline)) void int8_gemm_sparse(const GemmTiles& t, const Epilogue& epilogue) {
  using Int = typename Vec::Int;
  const int64_t stride = t.row_stride, step = t.step_quads * 4;
  const uint8_t* ahead = t.ahead;
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
        fetch_ahead(t, ahead);
        if (quads == 0) continue;
        Int x[MR];
        const uint8_t* row = at;
#pragma GCC unroll 16
        for (int r = 0; r < MR; r++, row += stride) x[r] = Vec::load_some(row, step);
        do {
          const SparseQuad<Vec, NV> quad(w);
#pragma GCC unroll 16
          for (int r = 0; r < MR; r++) quad.add(acc[r], x[r]);
        } while (--quads > 0);
      }
    }
    store_tile<Vec, MR, NV>(acc, e, clamp);
  });
}

// Steps of 64 activations are read from L1 for every quad: two tiles' sums leave no registers for them.
template <class Vec, int MR, int NV>
struct SparseTurns {
  template <bool kResidual, bool kPartial, bool kPlain>
  static __attribute__((noinline)) void run(const GemmTiles& t, const Epilogue& e) {
    const RowSteps rows(t.row_stride);
    const uint8_t* ahead = t.ahead;
    const auto products = [&](const uint8_t* a, typename Vec::Int(&sums)[MR][NV],
                              const auto& finish) __attribute__((always_inline)) {
      const auto* w = static_cast<const int8_t*>(t.weight);
      const uint8_t* picks = t.picks;
      const uint8_t* base[2];
      const uint8_t* at = a;
      int quads = 0, run = 0, left = 0;  // left: quads of dense steps of this run
      // Moves to the next step that has products; false where there is none.
      const auto find = [&]() __attribute__((always_inline)) {
        while (quads == 0) {
          if (left == 0) {
            if (run == t.runs) return false;
            at = a + t.offsets[run++];
            left = t.singles;
          }
          quads = *picks++;
          fetch_ahead(t, ahead);
          rows.set_bases(base, at);
          at += Vec::kBytes;
          left -= Vec::kBytes / 4;
        }
        return true;
      };
      const auto quad = [&]() __attribute__((always_inline)) {
        const SparseQuad<Vec, NV> one(w);
        each_row<MR>([&]<int R>() __attribute__((always_inline)) {
          one.add(sums[R], Vec::load(base[R / 4] + rows.at<R>()));
        });
        quads--;
      };
      const auto first = [&]<int kFour>() __attribute__((always_inline)) {
        if (quads > 0 || find()) quad();
        finish.template operator()<kFour>();
      };
      first.template operator()<0>();
      first.template operator()<1>();
      first.template operator()<2>();
      first.template operator()<3>();
      while (quads > 0 || find()) quad();
    };
    tiles_in_turn<Vec, MR, NV, kResidual, kPartial, kPlain>(t, e, products);
  }
};

template <class Vec, int MR, int NV>
void int8_gemm_sparse_turns(const GemmTiles& t, const Epilogue& e) {
  const bool pays = t.step_quads * 4 == Vec::kBytes && t.panel_bytes > least_turn_bytes(NV);
  if (!pays || !run_in_turn<Vec, NV, SparseTurns<Vec, MR, NV>>(t, e)) {
    int8_gemm_sparse<Vec, MR, NV>(t, e);
  }
}

// Multiply-adds of about `rounds` quads of a tile whose rows and weights lie in L1, all 0. The kernel itself is
// timed: how many products a core does beside its permutes depends on how they follow one another.
template <class Vec, int NV>
int64_t sparse_rounds(int64_t rounds) {
  constexpr int kRows = 7, kSteps = 8, kQuads = 16, kWidth = NV * Vec::kLanes;
  alignas(64) static constexpr uint8_t kInput[kRows * kSteps * Vec::kBytes] = {};
  alignas(64) static constexpr int8_t
      kWeight[kSteps * kQuads * (1 + NV) * Vec::kBytes + kSparseAhead] = {};
  static constexpr uint8_t kPicks[kSteps] = {kQuads, kQuads, kQuads, kQuads,
                                             kQuads, kQuads, kQuads, kQuads};
  static constexpr int32_t kOffset = 0, kBias[kWidth] = {};
  static constexpr float kMultiplier[kWidth] = {};
  uint8_t out[kRows * kWidth];
  GemmTiles t{};
  t.a = kInput;
  t.row_stride = kSteps * Vec::kBytes;
  t.tiles = 1;
  t.lines = 1;
  t.weight = kWeight;
  t.offsets = &kOffset;
  t.runs = 1;
  t.singles = kSteps * Vec::kBytes / 4;
  t.step_quads = Vec::kBytes / 4;
  t.picks = kPicks;
  Epilogue e{};
  e.kind = EpilogueKind::kUint8;
  e.bias = kBias;
  e.multiplier = kMultiplier;
  e.qmax = 255;
  e.n_valid = kWidth;
  e.out_u8 = out;
  e.ldc = kWidth;
  const int64_t tiles = rounds / (kSteps * kQuads) + 1;
  for (int64_t i = 0; i < tiles; i++) int8_gemm_sparse<Vec, kRows, NV>(t, e);
  return tiles * kSteps * kQuads * kRows * kWidth * 4;
}

template <class Vec, int NV, int R>
constexpr GemmKernel sparse_or_turns() {
  if constexpr (NV == 2 && R >= kLeastTurnRows && R <= kMostTurnRows) {
    return int8_gemm_sparse_turns<Vec, R, NV>;
  } else {
    return int8_gemm_sparse<Vec, R, NV>;
  }
}

// Every height up to the number of R.
template <class Vec, int NV, int... R>
constexpr GemmKernels sparse_kernels(std::integer_sequence<int, R...>) {
  return {sizeof...(R), {sparse_or_turns<Vec, NV, R + 1>()...}, NV == 2 ? kMostTurnRows : 0};
}

}  // namespace
}  // namespace fastinfer
