// A convolution of 3 x 3 by Winograd's F(4 x 4, 3 x 3), exact to the bit, for vectors that multiply int16's: 36
// products of an input channel instead of the 144 that 4 x 4 results are made of.
//
// Y = A' [(G g G') * (B' d B)] A, with fractions in G: of 24 times each dimension all are integers. Inputs
// then fit int16 (100 * 255 / 2 at most), and so do weights (49 * 127). Their products are summed modulo
// 2^32, where 9 has an inverse: what is left of the 576 is a shift, by 6 bits at most. So a sum comes out
// whole if it fits 26 bits: kWinogradSum. Rows of G differ by factors, which A makes up for:
//
//   G:  6 0 0 | 1 1 1 | -1 1 -1 | 1 2 4 | 1 -2 4 | 0 0 6
//   A': 1 -4 4 1 1 0 (of 24) | 0 -2 -2 1 -1 0 (of 12) | 0 -1 1 1 1 0 (of 6) | 0 -1 -1 2 -2 1 (of 6)
//
// These are values of polynomials at 0, 1, -1, 2, -2 and infinity. A tile with 3 results in a dimension takes
// all but -2, one with 2 all but the two 2's, of the same weights: F(3, 3) and F(2, 3) but for factors.
//
// (Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, 2016.) Decision 31 has what it gains.
#pragma once

#include <utility>

#include "../winograd_kernels.h"
#include "store_tile.h"
#include "winograd_forms.h"

namespace fastinfer {
namespace {

// The positions of a dimension with kCount results, of which 1 is taken for 2.
template <int kCount>
constexpr int kWinogradTaken[kCount + 2] = {0, 1, 2, 3, 4, 5};
template <>
constexpr int kWinogradTaken<3>[5] = {0, 1, 2, 3, 5};
template <>
constexpr int kWinogradTaken<2>[4] = {0, 1, 2, 5};

// call<kCount>() for a number of results.
template <class Call>
inline __attribute__((always_inline)) void with_count(int results, const Call& call) {
  if (results == 4) return call.template operator()<4>();
  if (results == 3) return call.template operator()<3>();
  call.template operator()<2>();
}

// B' d, in the order of kWinogradTaken.
template <class Vec, int kCount, class Int = typename Vec::Int>
inline __attribute__((always_inline)) void winograd_input_line(const Int (&d)[kCount + 2],
                                                               Int (&t)[kCount + 2]) {
  const auto twice = [](Int v) { return Vec::add16(v, v); };
  if constexpr (kCount == 4) {
    const auto four = [](Int v) { return Vec::template up16<2>(v); };
    const Int c = Vec::sub16(d[4], d[2]), e = twice(Vec::sub16(d[3], d[1]));
    t[0] = Vec::add16(four(Vec::sub16(d[0], d[2])), c);
    t[5] = Vec::sub16(Vec::sub16(d[5], d[3]), twice(e));
    const Int a = Vec::sub16(d[4], four(d[2])), b = Vec::sub16(d[3], four(d[1]));
    t[1] = Vec::add16(a, b);
    t[2] = Vec::sub16(a, b);
    t[3] = Vec::add16(c, e);
    t[4] = Vec::sub16(c, e);
  } else if constexpr (kCount == 3) {
    const Int e = Vec::sub16(d[3], d[1]), f = Vec::sub16(d[1], d[2]);
    t[0] = Vec::add16(twice(Vec::sub16(d[0], d[2])), e);
    t[1] = Vec::sub16(e, Vec::add16(d[1], d[2]));
    t[2] = Vec::add16(e, Vec::add16(f, twice(f)));
    t[3] = e;
    t[4] = Vec::sub16(Vec::sub16(d[4], d[2]), twice(e));
  } else {
    t[0] = Vec::sub16(d[0], d[2]);
    t[1] = Vec::add16(d[1], d[2]);
    t[2] = Vec::sub16(d[1], d[2]);
    t[3] = Vec::sub16(d[3], d[1]);
  }
}

// A block of channels of a tile: the parts of each position.
template <class Form>
using WinogradLines = int16_t[kWinogradSide][kWinogradSide][Form::kParts * Form::Vec::kBytes / 2];

// Lines of pixels into lines of positions, of a block of channels.
template <class Form, int kLines>
inline void winograd_lines(const WinogradInput& w, int64_t c, WinogradLines<Form>& to) {
  using Vec = typename Form::Vec;
  using Int = typename Vec::Int;
  constexpr int kSide = kLines + 2, kParts = Form::kParts;
  const int64_t left = w.channels - c;
  const int side = winograd_side(w.columns);
  for (int x = 0; x < side; x++) {
    Int d[kParts][kSide], t[kSide];
#pragma GCC unroll 6
    for (int y = 0; y < kSide; y++) {
      Int words[kParts];
      Form::words(w.pixels[y * kWinogradSide + x] + c, left, words);
#pragma GCC unroll 2
      for (int part = 0; part < kParts; part++) d[part][y] = words[part];
    }
#pragma GCC unroll 2
    for (int part = 0; part < kParts; part++) {
      winograd_input_line<Vec, kLines>(d[part], t);
#pragma GCC unroll 6
      for (int y = 0; y < kSide; y++) Vec::store(to[y][x] + part * Vec::kBytes / 2, t[y]);
    }
  }
}

// The same with columns, of the lines of positions.
template <class Form, int kColumns>
inline void winograd_columns(const WinogradInput& w, int64_t c, const WinogradLines<Form>& from,
                             const int* lines, int count) {
  using Vec = typename Form::Vec;
  using Int = typename Vec::Int;
  constexpr int kSide = kColumns + 2, kAll = Form::kParts * Vec::kBytes / 2;
  for (int y = 0; y < count; y++) {
    int16_t* const to = w.to + c + lines[y] * kWinogradSide * w.position_step;
    const auto& places = w.place.at[kWinogradLevel[lines[y]]];
    for (int64_t h = 0; h < kAll; h += Vec::kBytes / 2) {
      Int d[kSide], t[kSide];
#pragma GCC unroll 6
      for (int x = 0; x < kSide; x++) d[x] = Vec::load(from[y][x] + h);
      winograd_input_line<Vec, kColumns>(d, t);
#pragma GCC unroll 6
      for (int x = 0; x < kSide; x++) {
        const int column = kWinogradTaken<kColumns>[x];
        Vec::store(to + column * w.position_step + places[kWinogradLevel[column]] + h, t[x]);
      }
    }
  }
}

template <class Form>
__attribute__((noinline)) void winograd_input(const WinogradInput& w) {
  static_assert(kWinogradBlock % Form::kChannels == 0);
  alignas(64) WinogradLines<Form> lines;
  with_count(w.lines, [&]<int kLines>() {
    with_count(w.columns, [&]<int kColumns>() {
      for (int64_t c = 0; c < w.channels; c += Form::kChannels) {
        winograd_lines<Form, kLines>(w, c, lines);
        winograd_columns<Form, kColumns>(w, c, lines, kWinogradTaken<kLines>, kLines + 2);
      }
    });
  });
}

// Elements kWinogradPairs[kPair] of G g: taps.operator()<i, kTimes>() is g[i] so many times.
template <class Vec, int kPair, class Taps>
inline __attribute__((always_inline)) void winograd_weight_pair(const Taps& taps,
                                                                typename Vec::Int (&t)[2]) {
  if constexpr (kPair == 0) {
    t[0] = taps.template operator()<0, 6>();
    t[1] = taps.template operator()<2, 6>();
  } else if constexpr (kPair == 1) {
    const auto sum = Vec::add16(taps.template operator()<0, 1>(), taps.template operator()<2, 1>());
    const auto middle = taps.template operator()<1, 1>();
    t[0] = Vec::add16(sum, middle);
    t[1] = Vec::sub16(middle, sum);
  } else {
    const auto even = Vec::add16(taps.template operator()<0, 1>(), taps.template operator()<2, 4>());
    const auto odd = taps.template operator()<1, 2>();
    t[0] = Vec::add16(even, odd);
    t[1] = Vec::sub16(even, odd);
  }
}

// Taps of vectors of int16 for winograd_weight_pair.
template <class Vec>
inline __attribute__((always_inline)) auto winograd_times(const typename Vec::Int (&g)[3]) {
  return [&g]<int kTap, int kTimes>() __attribute__((always_inline)) {
    return times16<Vec, kTimes>(g[kTap]);
  };
}

// kLate: by lines only, three columns of taps of a vector one after the other, position_step from line to line.
template <class Form, int NV, int kPair, bool kLate>
inline void winograd_weight_lines(const WinogradWeights& w) {
  using Vec = typename Form::Vec;
  using Int = typename Vec::Int;
  constexpr bool kIsWords = Form::kForm == GemmForm::kWords;
  constexpr int kValues = Vec::kBytes / 2;  // of a vector
  const int64_t vectors = w.quads * (kIsWords ? 2 : 1) * NV, tap_bytes = vectors * Vec::kBytes;
  const auto part = [&]<int kPart>(const int8_t* from, int64_t vector)
      __attribute__((always_inline)) {
    int16_t* const to = w.to + vector * kValues * (kLate ? 3 : 1);
    Int lines[2][3];
#pragma GCC unroll 3
    for (int x = 0; x < 3; x++) {
      const auto taps = [&]<int kTap, int kTimes>() __attribute__((always_inline)) {
        return Form::template weights<kPart, kTimes>(Vec::load(from + (kTap * 3 + x) * tap_bytes));
      };
      Int t[2];
      winograd_weight_pair<Vec, kPair>(taps, t);
      lines[0][x] = t[0];
      lines[1][x] = t[1];
    }
    if constexpr (kLate) {
#pragma GCC unroll 2
      for (int y = 0; y < 2; y++) {
#pragma GCC unroll 3
        for (int x = 0; x < 3; x++) Vec::store(to + y * w.position_step + x * kValues, lines[y][x]);
      }
      return;
    }
    const auto columns = [&]<int kColumns>() __attribute__((always_inline)) {
#pragma GCC unroll 2
      for (int y = 0; y < 2; y++) {
        Int t[2];
        winograd_weight_pair<Vec, kColumns>(winograd_times<Vec>(lines[y]), t);
#pragma GCC unroll 2
        for (int i = 0; i < 2; i++) {
          const int x = kWinogradPairs[kColumns][i];
          Vec::store(to + (y * kWinogradSide + x) * w.position_step, t[i]);
        }
      }
    };
    each_row<3>(columns);
  };
  for (int64_t i = 0; i < vectors; i++) {
    const int8_t* const from = static_cast<const int8_t*>(w.weight) + i * Vec::kBytes;
    if constexpr (kIsWords) {
      part.template operator()<0>(from, i);
    } else {
      const int64_t even = i / NV * 2 * NV + i % NV;
      part.template operator()<0>(from, even);
      part.template operator()<1>(from, even + NV);
    }
  }
}

template <class Form, int NV, bool kLate>
__attribute__((noinline)) void winograd_weights(const WinogradWeights& w) {
  switch (w.pair) {
    case 0: return winograd_weight_lines<Form, NV, 0, kLate>(w);
    case 1: return winograd_weight_lines<Form, NV, 1, kLate>(w);
    default: return winograd_weight_lines<Form, NV, 2, kLate>(w);
  }
}

template <class Vec, int MR, int NV, class Int = typename Vec::Int>
inline __attribute__((always_inline)) void winograd_start(Int (&acc)[MR][NV]) {
#pragma GCC unroll 16
  for (int r = 0; r < MR; r++) {
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) acc[r][v] = Vec::zero();
  }
}

template <class Vec, int MR, int NV, class Int = typename Vec::Int>
inline __attribute__((always_inline)) void winograd_store(const Int (&acc)[MR][NV], int32_t* sums) {
#pragma GCC unroll 16
  for (int r = 0; r < MR; r++) {
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) Vec::store(sums + (r * NV + v) * Vec::kLanes, acc[r][v]);
  }
}

template <class Form, int MR, int NV>
__attribute__((noinline)) void winograd_products(const WinogradProducts& p) {
  using Vec = typename Form::Vec;
  static_assert(MR <= 4 * Form::kBases, "a base reaches four rows");
  const RowSteps steps(p.row_bytes);
  typename Vec::Int acc[MR][NV];
  winograd_start<Vec>(acc);
  const uint8_t* base[Form::kBases];
  steps.set_bases(base, reinterpret_cast<const uint8_t*>(p.rows));
  Form::multiply(steps, base, reinterpret_cast<const uint8_t*>(p.weight), p.quads, acc);
  winograd_store<Vec>(acc, p.sums);
}

// A' m, of kWinogradTaken; times 3 and the powers of two of kWinogradTwos.
template <class Vec, int kCount, class Int = typename Vec::Int>
inline __attribute__((always_inline)) void winograd_output_line(const Int (&m)[kCount + 2],
                                                                Int (&y)[kCount]) {
  const auto twice = [](Int v) { return Vec::add32(v, v); };
  const auto thrice = [&](Int v) { return Vec::add32(v, twice(v)); };
  if constexpr (kCount == 4) {
    const Int s1 = Vec::sub32(m[2], m[1]), d1 = Vec::add32(m[1], m[2]);
    const Int s3 = Vec::add32(m[3], m[4]), d3 = Vec::sub32(m[3], m[4]);
    y[0] = Vec::add32(Vec::add32(m[0], s3), Vec::template up32<2>(s1));
    y[1] = Vec::sub32(d3, twice(d1));
    y[2] = Vec::add32(s1, s3);
    y[3] = Vec::add32(Vec::sub32(m[5], d1), twice(d3));
  } else if constexpr (kCount == 3) {
    const Int a = thrice(m[1]), b = twice(m[3]);
    y[0] = Vec::add32(m[0], twice(Vec::sub32(Vec::add32(m[2], m[3]), a)));
    y[1] = Vec::sub32(b, Vec::add32(a, m[2]));
    y[2] = Vec::add32(Vec::sub32(m[2], a), Vec::add32(twice(b), m[4]));
  } else {
    y[0] = Vec::add32(m[0], thrice(Vec::add32(m[1], m[2])));
    y[1] = Vec::add32(m[3], thrice(Vec::sub32(m[1], m[2])));
  }
}
template <int kCount>
constexpr int kWinogradTwos[kCount] = {3, 2, 1, 1};
template <>
constexpr int kWinogradTwos<3>[3] = {2, 1, 1};
template <>
constexpr int kWinogradTwos<2>[2] = {1, 1};

// A vector of channels of a tile: its sums, [line of kWinogradOut][column] `step` values apart.
template <class Vec, int kLines, int kColumns>
inline void winograd_sums(const WinogradOutput& w, int at, int32_t* to, int64_t step) {
  using Int = typename Vec::Int;
  Int columns[kLines][kColumns + 2];
  const auto column = [&]<int kX>() __attribute__((always_inline)) {
    constexpr int kColumn = kWinogradTaken<kColumns>[kX];
    Int m[kLines + 2], y[kLines];
#pragma GCC unroll 6
    for (int i = 0; i < kLines + 2; i++) {
      const int line = kWinogradTaken<kLines>[i];
      m[i] = Vec::load(w.sums + (line * kWinogradSide + kColumn) * w.position_step +
                       w.place.at[kWinogradLevel[line]][kWinogradLevel[kColumn]] + at);
    }
    winograd_output_line<Vec, kLines>(m, y);
#pragma GCC unroll 4
    for (int i = 0; i < kLines; i++) columns[i][kX] = y[i];
  };
  each_row<kColumns + 2>(column);
  // Two dimensions make 9 of their 3's.
  const Int ninth = Vec::set32(0x38e38e39);  // 9 times this is 1 modulo 2^32
  const auto line = [&]<int kLine>() __attribute__((always_inline)) {
    Int y[kColumns];
    winograd_output_line<Vec, kColumns>(columns[kLine], y);
    const auto put = [&]<int kColumn>() __attribute__((always_inline)) {
      constexpr int kShift = kWinogradTwos<kLines>[kLine] + kWinogradTwos<kColumns>[kColumn];
      const Int sum = Vec::template down32<kShift>(Vec::mul32(y[kColumn], ninth));
      Vec::store(to + (kLine * kWinogradOut + kColumn) * step, sum);
    };
    each_row<kColumns>(put);
  };
  each_row<kLines>(line);
}

template <class Vec, int NV>
__attribute__((noinline)) void winograd_output(const WinogradOutput& w, const Epilogue& epilogue) {
  constexpr int kWidth = NV * Vec::kLanes;
  alignas(64) int32_t sums[kWinogradOut][kWinogradOut][kWidth];
  with_count(w.lines, [&]<int kLines>() {
    with_count(w.columns, [&]<int kColumns>() {
      for (int at = 0; at < kWidth; at += Vec::kLanes) {
        winograd_sums<Vec, kLines, kColumns>(w, at, &sums[0][0][at], kWidth);
      }
    });
  });
  Epilogue e = epilogue;
  const ByteClamp clamp(e.out_zero_point, e.qmin, e.qmax);
  const auto store = [&]<int kColumns>() __attribute__((always_inline)) {
    for (int y = 0; y < w.lines; y++, e.shift(w.line_step)) {
      typename Vec::Int acc[kColumns][NV];
      start_tile<Vec>(acc, e.bias);
#pragma GCC unroll 4
      for (int x = 0; x < kColumns; x++) {
#pragma GCC unroll 4
        for (int v = 0; v < NV; v++) {
          acc[x][v] = Vec::add32(acc[x][v], Vec::load(&sums[y][x][v * Vec::kLanes]));
        }
      }
      store_tile<Vec, kColumns, NV>(acc, e, clamp);
    }
  };
  switch (w.columns) {
    case 1: return store.template operator()<1>();
    case 2: return store.template operator()<2>();
    case 3: return store.template operator()<3>();
    default: return store.template operator()<4>();
  }
}

template <class Form, int NV, int... R>
constexpr WinogradKernels winograd_kernels(const WinogradCost& cost,
                                           std::integer_sequence<int, R...>,
                                           const WinogradLate& late = {}) {
  using Vec = typename Form::Vec;
  static_assert(sizeof...(R) <= kWinogradRows);
  return {Form::kForm,
          NV * Vec::kLanes,
          sizeof...(R),
          cost,
          winograd_input<Form>,
          winograd_weights<Form, NV, false>,
          {winograd_products<Form, R + 1, NV>...},
          winograd_output<Vec, NV>,
          late};
}

}  // namespace
}  // namespace fastinfer
