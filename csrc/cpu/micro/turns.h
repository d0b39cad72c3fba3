// GEMM tiles in turn, for vectors with masks: while one tile's products are summed, results are made of
// the sums of the one before.
//
// Dot products and what makes results of sums use other parts of a core. Mixed they overlap; one after
// the other they do not, as more of either wait than a CPU looks through. Two low tiles take as many
// registers as a high one.
#pragma once

#include "store_tile.h"
#include "tiles.h"

namespace fastinfer {
namespace {

// A tile's vectors of results, four at a time.
constexpr int kMostFours = 4;

// Heights of tiles that are taken in turn, of two vectors of results a row. Of one vector it is no faster:
// each dot product has a load of its own.
constexpr int kLeastTurnRows = 4, kMostTurnRows = 7;

// Asks for a tile's residuals. In a network they have left L2: at batch 16 ResNet-50's layers of 64 inputs waited for
// them for a tenth of their time (Zen 5).
template <int MR>
inline __attribute__((always_inline)) void fetch_residual(const uint8_t* residual, int64_t ldc) {
#pragma GCC unroll 8
  for (int r = 0; r < MR; r++, residual += ldc) prefetch<Cache::kL1>(residual, 1);
}

// products(a, sums, finish) computes the tile whose rows begin at a, and calls finish<0>() to
// finish<kMostFours - 1>() early, one after a few products.
template <class Vec, int MR, int NV, bool kResidual, bool kPartial, bool kPlain, class Products>
inline __attribute__((always_inline)) void tiles_in_turn(const GemmTiles& t, const Epilogue& e,
                                                         const Products& products) {
  static_assert(MR * NV <= 4 * kMostFours);
  using Int = typename Vec::Int;
  const ByteClamp clamp(e.out_zero_point, e.qmin, e.qmax);
  // The first tile has none before it: results of anything go nowhere.
  alignas(64) uint8_t nowhere[Vec::kBytes] = {};
  Int acc[2][MR][NV];
  start_tile<Vec>(acc[1], e.bias);
  PanelPlaces here(e), before(e);
  before.out = nowhere;
  before.residual = nowhere;
  before.ldc = 0;

  const int64_t all = t.tiles * t.lines;
  const uint8_t* a = t.a;
  int64_t done = 0, left = t.tiles;  // left: of the line
  const auto finish_four = [&]<int kFour>(const Int(&sums)[MR][NV])
                               __attribute__((always_inline)) {
    if constexpr (kFour * 4 < MR * NV) {
      store_four<Vec, MR, NV, kResidual, kPartial, kPlain>(sums, kFour * 4, before, clamp);
    }
  };
  // Returns true after the last one.
  const auto tile = [&](Int(&now)[MR][NV], const Int(&last)[MR][NV])
                        __attribute__((always_inline)) {
    start_tile<Vec>(now, e.bias);
    if constexpr (kResidual) {
      // Those of the tile after the next one; at the end of the next panel's first ones. What follows the last tile is
      // another thread's, which writes there now and would have to get its lines back.
      const int64_t past = done + 2 - all;
      fetch_residual<MR>(past < 0 ? here.residual + 2 * MR * here.ldc
                                  : e.residual_u8 + NV * Vec::kLanes + past * MR * here.ldc,
                         here.ldc);
    }
    products(a, now, [&]<int kFour>() __attribute__((always_inline)) {
      finish_four.template operator()<kFour>(last);
    });
    before = here;
    here.advance(MR);
    a += MR * t.row_stride;
    if (--left == 0) {
      left = t.tiles;
      a += t.line_step - t.tiles * MR * t.row_stride;
    }
    if (++done < all) return false;
    finish_four.template operator()<0>(now);
    finish_four.template operator()<1>(now);
    finish_four.template operator()<2>(now);
    finish_four.template operator()<3>(now);
    return true;
  };
  while (!tile(acc[0], acc[1]) && !tile(acc[1], acc[0])) {
  }
}

// Kernel::run<kResidual, kPartial, kPlain>(t, e) where there are uint8 results of several tiles; else
// false.
template <class Vec, int NV, class Kernel>
inline bool run_in_turn(const GemmTiles& t, const Epilogue& e) {
  if (e.kind != EpilogueKind::kUint8 || e.unbounded || t.tiles * t.lines < 2) return false;
  const auto by_residual = [&]<bool kPartial, bool kPlain>() {
    if (e.residual_u8 != nullptr) {
      Kernel::template run<true, kPartial, kPlain>(t, e);
    } else {
      Kernel::template run<false, kPartial, kPlain>(t, e);
    }
  };
  if (e.n_valid < NV * Vec::kLanes) {
    by_residual.template operator()<true, false>();
  } else if (ByteClamp(e.out_zero_point, e.qmin, e.qmax).is_plain) {
    by_residual.template operator()<false, true>();
  } else {
    by_residual.template operator()<false, false>();
  }
  return true;
}

}  // namespace
}  // namespace fastinfer
