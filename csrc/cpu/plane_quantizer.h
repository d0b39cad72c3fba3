// Quantizes a float image in NCHW memory into a uint8 one in NHWC memory. Torch-free.
#pragma once

#include <algorithm>

#include "kernel_table.h"
#include "scratch.h"
#include "work.h"

namespace fastinfer {

struct PlaneQuantizer {
  const KernelTable& table;
  const float* x;
  uint8_t* q;
  int64_t batch, channels, pixels;
  float inverse_scale;
  int32_t zero_point;

  static constexpr int64_t kPixels = 64;  // all channels of this many at a time

  int64_t strips() const { return (pixels + kPixels - 1) / kPixels; }
  Work work() const { return {batch * channels * pixels * kMoveWork, batch * strips()}; }
  void run_part(int thread, int threads) const {
    struct Strip;
    uint8_t* strip = scratch<Strip>(channels * kPixels);
    const auto [s0, s1] = share_of(batch * strips(), thread, threads);
    for (int64_t s = s0; s < s1; s++) {
      const int64_t image = s / strips(), p0 = s % strips() * kPixels;
      const int64_t count = std::min(kPixels, pixels - p0);
      const float* from = x + image * channels * pixels + p0;
      for (int64_t c = 0; c < channels; c++) {
        table.quantize(from + c * pixels, strip + c * kPixels, count, inverse_scale, zero_point);
      }
      interleave(strip, count, q + (image * pixels + p0) * channels);
    }
  }

 private:
  void interleave(const uint8_t* strip, int64_t count, uint8_t* to) const {
    if (channels == 3) {
      for (int64_t p = 0; p < count; p++) {
        to[3 * p] = strip[p];
        to[3 * p + 1] = strip[kPixels + p];
        to[3 * p + 2] = strip[2 * kPixels + p];
      }
      return;
    }
    for (int64_t p = 0; p < count; p++) {
      for (int64_t c = 0; c < channels; c++) to[p * channels + c] = strip[c * kPixels + p];
    }
  }
};

}  // namespace fastinfer
