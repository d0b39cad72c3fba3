// Depthwise convolution with a kernel of three rows, two output rows at once.
//
// Interleaving costs more than the products, and four input rows that are interleaved column by column
// serve two output rows: at a vertical stride of 1 they read rows 0..2 and 1..3, at 2 rows 0..2 and
// 2..4. So the lower row's weights are the upper row's, each lane's bytes moved up by the stride; the
// fifth row's products are one more group, of its columns.
#pragma once

#include "int8_depthwise.h"

namespace fastinfer {
namespace {

constexpr int kMostRowGroups = 4;  // three columns, and the fifth row

template <class Vec>
struct RowPairWeights {
  alignas(64) int8_t upper[kMostRowGroups * 4 * Vec::kBytes];
  alignas(64) int8_t lower[kMostRowGroups * 4 * Vec::kBytes];

  RowPairWeights(const int8_t* w, int groups, int stride_h) {
    using Int = typename Vec::Int;
    const int columns = stride_h == 1 ? groups : groups - 1;
    for (int v = 0; v < 4; v++) {
      Int fifth = Vec::zero();
      for (int j = columns; j-- > 0;) {
        const int at = (j * 4 + v) * Vec::kBytes;
        const Int weight = Vec::load(w + at);
        Vec::store(upper + at, weight);
        Vec::store(lower + at, stride_h == 1 ? Vec::template bytes_up<1>(weight)
                                             : Vec::template bytes_up<2>(weight));
        fifth = Vec::or_bits(Vec::template bytes_up<1>(fifth), Vec::template only_byte<2>(weight));
      }
      if (columns == groups) continue;
      Vec::store(upper + (columns * 4 + v) * Vec::kBytes, Vec::zero());
      Vec::store(lower + (columns * 4 + v) * Vec::kBytes, fifth);
    }
  }
};

template <class Vec, int kPixels, bool kMayPass>
inline __attribute__((always_inline)) void depthwise_row_pair(const DepthwiseRun& run,
                                                              const RowPairWeights<Vec>& weight,
                                                              const Epilogue (&e)[2],
                                                              const ByteClamp& clamp,
                                                              int64_t pixel) {
  typename Vec::Int acc[2 * kPixels][4];
#pragma GCC unroll 4
  for (int v = 0; v < 4; v++) {
#pragma GCC unroll 4
    for (int p = 0; p < 2 * kPixels; p++) acc[p][v] = Vec::load(e[0].bias + v * Vec::kLanes);
  }
  const uint8_t* const* taps = run.taps;
  const int8_t* w[2] = {weight.upper, weight.lower};
  const int64_t at = pixel * run.tap_step;
  for (int g = run.tap_groups; g > 0; g--) {
    QuadTaps<Vec>::template accumulate_rows<kPixels, 2>(acc, taps, at, run.tap_step, w);
    taps += QuadTaps<Vec>::kTaps;
    w[0] += 4 * Vec::kBytes;
    w[1] += 4 * Vec::kBytes;
  }
#pragma GCC unroll 2
  for (int r = 0; r < 2; r++) {
#pragma GCC unroll 2
    for (int p = 0; p < kPixels; p++) {
      uint8_block<Vec, false, kMayPass>(acc[r * kPixels + p], e[r], clamp, pixel + p);
    }
  }
}

// run.rows is 2: see DepthwiseRun.
template <class Vec>
__attribute__((noinline)) void int8_depthwise_row_pair(const DepthwiseRun& run,
                                                       const Epilogue& first) {
  const ByteClamp clamp(first.out_zero_point, first.qmin, first.qmax);
  const RowPairWeights<Vec> weight(static_cast<const int8_t*>(run.weight), run.tap_groups,
                                   run.stride_h);
  Epilogue e[2] = {first, first};
  e[1].out_u8 += run.row_bytes;
  if (first.residual_u8 != nullptr) e[1].residual_u8 += run.row_bytes;
  int64_t pixel = 0;
  const int64_t free = run.may_pass ? run.pixels - 1 : 0;
  for (; pixel + 2 <= free; pixel += 2) {
    depthwise_row_pair<Vec, 2, true>(run, weight, e, clamp, pixel);
  }
  for (; pixel + 2 <= run.pixels; pixel += 2) {
    depthwise_row_pair<Vec, 2, false>(run, weight, e, clamp, pixel);
  }
  for (; pixel < run.pixels; pixel++) {
    depthwise_row_pair<Vec, 1, false>(run, weight, e, clamp, pixel);
  }
}

// Any run.
template <class Vec>
void int8_depthwise_rows(const DepthwiseRun& run, const Epilogue& e) {
  if (run.rows == 2) {
    int8_depthwise_row_pair<Vec>(run, e);
  } else {
    int8_depthwise<Vec, QuadTaps>(run, e);
  }
}

}  // namespace
}  // namespace fastinfer
