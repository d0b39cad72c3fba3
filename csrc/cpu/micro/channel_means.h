// The mean of an image, in the order of additions that fastinfer/ops/float_rows.py defines.
#pragma once

#include "float_rows.h"

namespace fastinfer {
namespace {

// Channels whose sums stay in L1; compilers make vectors of loops over all of them.
constexpr int kMeanChannels = 64;

inline void channel_means(const ChannelMeans& run) {
  const auto count = static_cast<float>(run.pixels);
  for (int64_t first = 0; first < run.channels; first += kMeanChannels) {
    const auto n = static_cast<int>(std::min<int64_t>(kMeanChannels, run.channels - first));
    float sums[kRowLanes][kMeanChannels] = {};
    const float* x = run.x + first;
    for (int64_t p = 0; p < run.pixels; p++, x += run.channels_all) {
      float* const sum = sums[p % kRowLanes];
      if (n == kMeanChannels) {
        for (int j = 0; j < kMeanChannels; j++) sum[j] = sum[j] + x[j];
      } else {
        for (int j = 0; j < n; j++) sum[j] = sum[j] + x[j];
      }
    }
    for (int half = kRowLanes / 2; half > 0; half /= 2) {
      for (int i = 0; i < half; i++) {
        for (int j = 0; j < kMeanChannels; j++) sums[i][j] = sums[i][j] + sums[i + half][j];
      }
    }
    for (int j = 0; j < n; j++) run.out[first + j] = sums[0][j] / count;
  }
}

}  // namespace
}  // namespace fastinfer
