// Depthwise convolution: one block of channels, a run of pixels, any number of taps.
//
// The taps' bytes are interleaved so that one lane holds all taps of one channel: pairs widened
// to 16 bits (exact on every CPU), or quads for the dot-product instruction. Interleaving works in
// 128-bit parts, so lane j of vector v is channel (j / 4) * 16 + v * 4 + j % 4; weights and
// per-channel vectors are packed in that order, and the final packs restore the natural one.
#pragma once

#include <cstring>

#include "../kernel_table.h"
#include "byte_clamp.h"

namespace fastinfer {
namespace {

// Loads bound this kernel, so a vector of weights is loaded once for all pixels, and `keep` holds the
// compiler from folding one load into several instructions.
template <class Vec>
struct PairTaps {  // weight: [tap pair][4 vectors][lanes][2] int16
  static constexpr int kTaps = 2;
  template <int kPixels>
  static inline __attribute__((always_inline)) void accumulate(
      typename Vec::Int (&acc)[kPixels][4], const uint8_t* const* taps, int64_t at, int64_t step,
      const int8_t* w) {
    using Int = typename Vec::Int;
    const Int zero = Vec::zero();
    Int half[2][kPixels];
#pragma GCC unroll 4
    for (int p = 0; p < kPixels; p++) {
      Int a = Vec::load(taps[0] + at + p * step), b = Vec::load(taps[1] + at + p * step);
      Vec::keep(a);
      Vec::keep(b);
      half[0][p] = Vec::unpack_low8(a, b);
      half[1][p] = Vec::unpack_high8(a, b);
    }
#pragma GCC unroll 4
    for (int v = 0; v < 4; v++) {
      Int weight = Vec::load(w + v * Vec::kBytes);
      Vec::keep(weight);
#pragma GCC unroll 4
      for (int p = 0; p < kPixels; p++) {
        const Int x = v % 2 == 0 ? Vec::unpack_low8(half[v / 2][p], zero)
                                 : Vec::unpack_high8(half[v / 2][p], zero);
        acc[p][v] = Vec::add32(acc[p][v], Vec::mul16_add32(x, weight));
      }
    }
  }
};

template <class Vec>
struct QuadTaps {  // weight: [tap quad][4 vectors][lanes][4] int8
  static constexpr int kTaps = 4;
  template <int kPixels>
  static inline __attribute__((always_inline)) void accumulate(
      typename Vec::Int (&acc)[kPixels][4], const uint8_t* const* taps, int64_t at, int64_t step,
      const int8_t* w) {
    accumulate_rows<kPixels, 1>(acc, taps, at, step, &w);
  }

  // The same taps with the weights of kRows output rows: acc holds one row's pixels after another's.
  template <int kPixels, int kRows>
  static inline __attribute__((always_inline)) void accumulate_rows(
      typename Vec::Int (&acc)[kRows * kPixels][4], const uint8_t* const* taps, int64_t at,
      int64_t step, const int8_t* const* w) {
    using Int = typename Vec::Int;
    Int ab[2][kPixels], cd[2][kPixels];
#pragma GCC unroll 4
    for (int p = 0; p < kPixels; p++) {
      Int x[4];
#pragma GCC unroll 4
      for (int t = 0; t < 4; t++) {
        x[t] = Vec::load(taps[t] + at + p * step);
        Vec::keep(x[t]);
      }
      ab[0][p] = Vec::unpack_low8(x[0], x[1]);
      ab[1][p] = Vec::unpack_high8(x[0], x[1]);
      cd[0][p] = Vec::unpack_low8(x[2], x[3]);
      cd[1][p] = Vec::unpack_high8(x[2], x[3]);
    }
#pragma GCC unroll 4
    for (int v = 0; v < 4; v++) {
      Int weight[kRows];
#pragma GCC unroll 2
      for (int r = 0; r < kRows; r++) {
        weight[r] = Vec::load(w[r] + v * Vec::kBytes);
        Vec::keep(weight[r]);
      }
#pragma GCC unroll 4
      for (int p = 0; p < kPixels; p++) {
        const Int x = v % 2 == 0 ? Vec::unpack_low16(ab[v / 2][p], cd[v / 2][p])
                                 : Vec::unpack_high16(ab[v / 2][p], cd[v / 2][p]);
#pragma GCC unroll 2
        for (int r = 0; r < kRows; r++) {
          Int(&sum)[4] = acc[r * kPixels + p];
          sum[v] = Vec::dot_u8s8(sum[v], x, weight[r]);
        }
      }
    }
  }
};

// Natural order to lane order: vector v's part i holds channels i * 16 + v * 4 .. + 3.
template <class Vec>
inline void store_block_float(const typename Vec::Float (&f)[4], const Epilogue& e,
                              int64_t pixel) {
  float block[Vec::kBytes];
  for (int v = 0; v < 4; v++) {
    for (int i = 0; i < Vec::kQuarters; i++) Vec::store_part(block + i * 16 + v * 4, f[v], i);
  }
  std::memcpy(e.out_f32 + pixel * e.ldc, block, static_cast<size_t>(e.n_valid) * sizeof(float));
}

template <class Vec>
inline void float_block(typename Vec::Int (&acc)[4], const Epilogue& e, int64_t pixel) {
  using Float = typename Vec::Float;
  const Float low = Vec::setf(e.clamp_min), high = Vec::setf(e.clamp_max);
  Float f[4];
  float residual[Vec::kBytes];
  if (e.residual_f32 != nullptr) {
    std::memset(residual, 0, sizeof(residual));
    std::memcpy(residual, e.residual_f32 + pixel * e.ldc,
                static_cast<size_t>(e.n_valid) * sizeof(float));
  }
  for (int v = 0; v < 4; v++) {
    const int at = v * Vec::kLanes;
    auto sum = acc[v];
    if (e.kind == EpilogueKind::kDynamic) {
      const auto zero_point = Vec::set32(e.row_zero_point[0]);
      sum = Vec::sub32(sum, Vec::mul32(zero_point, Vec::load(e.weight_sum + at)));
    }
    f[v] = Vec::mulf(Vec::to_float(sum), Vec::loadf(e.multiplier + at));
    if (e.kind == EpilogueKind::kDynamic) {
      f[v] = Vec::addf(Vec::mulf(f[v], Vec::setf(e.row_scale[0])), Vec::loadf(e.float_bias + at));
    }
    if (e.residual_f32 != nullptr) f[v] = Vec::addf(f[v], Vec::load_parts(residual + v * 4, 16));
    f[v] = Vec::minf(high, Vec::maxf(low, f[v]));
  }
  store_block_float<Vec>(f, e, pixel);
}

// kClamp: clamp as a float first, as store_tile.h does for unbounded results. kMayPass: bytes past
// n_valid may be written.
template <class Vec, bool kClamp, bool kMayPass>
inline __attribute__((always_inline)) void uint8_block(typename Vec::Int (&acc)[4],
                                                       const Epilogue& e,
                                                       const ByteClamp& clamp, int64_t pixel) {
  using Int = typename Vec::Int;
  using Float = typename Vec::Float;
  const Float high = Vec::setf(static_cast<float>(e.qmax - e.out_zero_point));
  const auto round = [&](Float f) { return Vec::round(kClamp ? Vec::minf(f, high) : f); };
  Int q[4];
  if (e.residual_u8 == nullptr) {
#pragma GCC unroll 4
    for (int v = 0; v < 4; v++) {
      q[v] = round(Vec::mulf(Vec::to_float(acc[v]), Vec::loadf(e.multiplier + v * Vec::kLanes)));
    }
  } else {
    uint8_t part[Vec::kBytes] = {};
    std::memcpy(part, e.residual_u8 + pixel * e.ldc, static_cast<size_t>(e.n_valid));
    const Int bytes = Vec::load(part), zero = Vec::zero();
    const Int low = Vec::unpack_low8(bytes, zero), upper = Vec::unpack_high8(bytes, zero);
    const Int wide[4] = {Vec::unpack_low16(low, zero), Vec::unpack_high16(low, zero),
                         Vec::unpack_low16(upper, zero), Vec::unpack_high16(upper, zero)};
#pragma GCC unroll 4
    for (int v = 0; v < 4; v++) {
      const int at = v * Vec::kLanes;
      const Float residual =
          Vec::mulf(Vec::to_float(wide[v]), Vec::loadf(e.residual_multiplier + at));
      q[v] = round(
          Vec::addf(Vec::mulf(Vec::to_float(acc[v]), Vec::loadf(e.multiplier + at)), residual));
    }
  }
  const Int bytes = Vec::pack_lanes(q[0], q[1], q[2], q[3], clamp);
  uint8_t* to = e.out_u8 + pixel * e.ldc;
  if (kMayPass || e.n_valid == Vec::kBytes) {
    Vec::store(to, bytes);
  } else {
    uint8_t part[Vec::kBytes];
    Vec::store(part, bytes);
    std::memcpy(to, part, static_cast<size_t>(e.n_valid));
  }
}

// `kPixels` neighbouring pixels at once.
template <class Vec, template <class> class Taps, int kPixels, EpilogueKind kKind, bool kClamp, bool kMayPass>
inline __attribute__((always_inline)) void depthwise_pixels(const DepthwiseRun& run,
                                                            const Epilogue& e,
                                                            const ByteClamp& clamp,
                                                            int64_t pixel) {
  typename Vec::Int acc[kPixels][4];
#pragma GCC unroll 4
  for (int v = 0; v < 4; v++) {
#pragma GCC unroll 4
    for (int p = 0; p < kPixels; p++) acc[p][v] = Vec::load(e.bias + v * Vec::kLanes);
  }
  const uint8_t* const* taps = run.taps;
  const auto* w = static_cast<const int8_t*>(run.weight);
  const int64_t at = pixel * run.tap_step;
  for (int g = run.tap_groups; g > 0; g--) {
    Taps<Vec>::template accumulate<kPixels>(acc, taps, at, run.tap_step, w);
    taps += Taps<Vec>::kTaps;
    w += 4 * Vec::kBytes;
  }
#pragma GCC unroll 4
  for (int p = 0; p < kPixels; p++) {
    if constexpr (kKind == EpilogueKind::kUint8) {
      uint8_block<Vec, kClamp, kMayPass>(acc[p], e, clamp, pixel + p);
    } else {
      float_block<Vec>(acc[p], e, pixel + p);
    }
  }
}

// Every tap must have kBytes readable bytes at each pixel of the run.
template <class Vec, template <class> class Taps>
__attribute__((noinline)) void int8_depthwise(const DepthwiseRun& run, const Epilogue& e) {
  constexpr auto kUint8 = EpilogueKind::kUint8, kFloat = EpilogueKind::kFloat;
  const ByteClamp clamp(e.out_zero_point, e.qmin, e.qmax);
  int64_t pixel = 0;
  if (e.kind != kUint8) {
    for (; pixel < run.pixels; pixel++) {
      depthwise_pixels<Vec, Taps, 1, kFloat, false, false>(run, e, clamp, pixel);
    }
  } else if (e.unbounded) {
    for (; pixel < run.pixels; pixel++) {
      depthwise_pixels<Vec, Taps, 1, kUint8, true, false>(run, e, clamp, pixel);
    }
  } else {
    const int64_t free = run.may_pass ? run.pixels - 1 : 0;
    for (; pixel + 2 <= free; pixel += 2) {
      depthwise_pixels<Vec, Taps, 2, kUint8, false, true>(run, e, clamp, pixel);
    }
    for (; pixel + 2 <= run.pixels; pixel += 2) {
      depthwise_pixels<Vec, Taps, 2, kUint8, false, false>(run, e, clamp, pixel);
    }
    for (; pixel < run.pixels; pixel++) {
      depthwise_pixels<Vec, Taps, 1, kUint8, false, false>(run, e, clamp, pixel);
    }
  }
}

}  // namespace
}  // namespace fastinfer
