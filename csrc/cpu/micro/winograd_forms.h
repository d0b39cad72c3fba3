// The forms of weights and activations that Winograd's convolution multiplies: see winograd.h.
#pragma once

#include <cstring>

#include "../cache_lines.h"
#include "../winograd_kernels.h"
#include "tiles.h"

namespace fastinfer {
namespace {

// Bytes of weights from those that are multiplied to those asked for: from L2, faster than the CPU does it alone.
constexpr int64_t kWeightsAhead = 1024;

// Int16's times a factor of G.
template <class Vec, int kTimes>
inline __attribute__((always_inline)) typename Vec::Int times16(typename Vec::Int v) {
  static_assert(kTimes == 1 || kTimes == 2 || kTimes == 4 || kTimes == 6);
  if constexpr (kTimes == 1) return v;
  if constexpr (kTimes == 2) return Vec::add16(v, v);
  if constexpr (kTimes == 4) return Vec::template up16<2>(v);
  return Vec::mul16(v, Vec::set16(6));
}

// Activations and weights as bytes in panels of kRows: two of a row's even channels are one value to broadcast,
// two odd ones another a vector further.
template <class V>
struct WinogradBytes {
  using Vec = V;
  using Int = typename Vec::Int;
  static constexpr GemmForm kForm = GemmForm::kRows;
  static constexpr int kBases = 4;  // of kWinogradRows rows: see RowSteps
  static constexpr int kParts = 2;  // vectors of int16 that a block of a pixel's channels makes
  static constexpr int64_t kChannels = Vec::kBytes;  // of a block

  // `left` channels, kChannels at most; others are 0.
  static void words(const uint8_t* pixel, int64_t left, Int (&to)[kParts]) {
    const Int v = left >= kChannels ? Vec::load(pixel) : Vec::load_some(pixel, left);
    to[0] = Vec::even_bytes(v);
    to[1] = Vec::odd_bytes(v);
  }

  // The even bytes of weights, or with kPart 1 the odd ones, so many times.
  template <int kPart, int kTimes>
  static inline __attribute__((always_inline)) Int weights(Int v) {
    return Vec::mul_u8s8_add16(Vec::set16(kPart == 0 ? kTimes : kTimes << 8), v);
  }

  template <int MR, int NV>
  static inline __attribute__((always_inline)) void multiply(const RowSteps& steps,
                                                             const uint8_t* (&base)[kBases],
                                                             const uint8_t* w, int64_t all_quads,
                                                             Int (&acc)[MR][NV]) {
    constexpr int kBlockQuads = Vec::kBytes / 4;
    for (int64_t left = all_quads; left > 0; left -= kBlockQuads) {
      const int quads = left < kBlockQuads ? static_cast<int>(left) : kBlockQuads;
      // Two of a row's even channels are one value to broadcast, two odd ones another a vector further.
      const auto quad = [&](int i) __attribute__((always_inline)) {
#pragma GCC unroll 2
        for (int half = 0; half < 2; half++) {
          Int b[NV];
#pragma GCC unroll 4
          for (int v = 0; v < NV; v++) b[v] = Vec::load(w + ((i * 2 + half) * NV + v) * Vec::kBytes);
          prefetch<Cache::kL1>(w + (i * 2 + half) * NV * Vec::kBytes + kWeightsAhead,
                               NV * Vec::kBytes);
          each_row<MR>([&]<int R>() __attribute__((always_inline)) {
            const Int x =
                Vec::broadcast4(base[R / 4] + steps.template at<R>() + half * Vec::kBytes + i * 4);
#pragma GCC unroll 4
            for (int v = 0; v < NV; v++) acc[R][v] = Vec::dot_s16s16(acc[R][v], x, b[v]);
          });
        }
      };
      const auto next = [&](int count, int64_t bytes) __attribute__((always_inline)) {
        w += count * 2 * NV * Vec::kBytes;
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) base[i] += bytes;
      };
      int k = quads;
      for (; k >= 2; k -= 2) {
        quad(0);
        quad(1);
        next(2, 8);
      }
      if (k > 0) {
        quad(0);
        next(1, 4);
      }
      next(0, Vec::kBytes);
    }
  }
};

// The same as int16's in panels of kWords.
template <class V>
struct WinogradWords {
  using Vec = V;
  using Int = typename Vec::Int;
  static constexpr GemmForm kForm = GemmForm::kWords;
  static constexpr int kBases = 3;
  static constexpr int kParts = 1;
  static constexpr int64_t kChannels = Vec::kBytes / 2;

  static void words(const uint8_t* pixel, int64_t left, Int (&to)[kParts]) {
    uint8_t some[kChannels] = {};
    if (left < kChannels) std::memcpy(some, pixel, static_cast<size_t>(left));
    to[0] = Vec::widen_u8_to_16(left < kChannels ? some : pixel);
  }

  // Weights so many times; there is one part.
  template <int kPart, int kTimes>
  static inline __attribute__((always_inline)) Int weights(Int v) {
    return times16<Vec, kTimes>(v);
  }

  template <int MR, int NV>
  static inline __attribute__((always_inline)) void multiply(const RowSteps& steps,
                                                             const uint8_t* (&base)[kBases],
                                                             const uint8_t* w, int64_t all_quads,
                                                             Int (&acc)[MR][NV]) {
    // Not unrolled: gcc would move the second step's loads up and spill.
    for (int64_t k = 2 * all_quads; k > 0; k--) {
      Int b[NV];
#pragma GCC unroll 4
      for (int v = 0; v < NV; v++) b[v] = Vec::load(w + v * Vec::kBytes);
      prefetch<Cache::kL1>(w + kWeightsAhead, NV * Vec::kBytes);
      each_row<MR>([&]<int R>() __attribute__((always_inline)) {
        const Int x = Vec::broadcast4(base[R / 4] + steps.template at<R>());
#pragma GCC unroll 4
        for (int v = 0; v < NV; v++) {
          acc[R][v] = Vec::add32(acc[R][v], Vec::mul16_add32(x, b[v]));
        }
      });
      w += NV * Vec::kBytes;
#pragma GCC unroll 3
      for (int i = 0; i < 3; i++) base[i] += 4;
    }
  }
};

}  // namespace
}  // namespace fastinfer
