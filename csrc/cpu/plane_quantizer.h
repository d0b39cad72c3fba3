// Quantizes a float image in NCHW memory into a uint8 one in NHWC memory. Torch-free.
#pragma once

#include <algorithm>

#include "cache_lines.h"
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

  // All channels of so many pixels at a time: some KiB, which stay in L1.
  int64_t strip_pixels() const { return channels <= 8 ? 256 : 64; }
  int64_t strips() const { return divide_up(pixels, strip_pixels()); }
  Work work() const { return {batch * channels * pixels * kMoveWork, batch * strips()}; }
  void run_part(int thread, int threads) const {
    struct Strip;
    const int64_t step = strip_pixels();
    uint8_t* strip = scratch<Strip>(channels * step);
    const auto [s0, s1] = share_of(batch * strips(), thread, threads);
    for (int64_t s = s0; s < s1; s++) {
      const int64_t image = s / strips(), p0 = s % strips() * step;
      const int64_t count = std::min(step, pixels - p0);
      const float* from = x + image * channels * pixels + p0;
      for (int64_t c = 0; c < channels; c++) {
        // The image comes from another core's cache or from memory, and each channel is a stream.
        if (p0 + 2 * step <= pixels) {
          prefetch<Cache::kL1>(from + c * pixels + step, step * int64_t{sizeof(float)});
        }
        table.quantize(from + c * pixels, strip + c * step, count, inverse_scale, zero_point);
      }
      interleave(strip, step, count, q + (image * pixels + p0) * channels);
    }
  }

 private:
  void interleave(const uint8_t* strip, int64_t step, int64_t count, uint8_t* to) const {
    if (channels == 3) return table.interleave3(strip, step, count, to);
    for (int64_t p = 0; p < count; p++) {
      for (int64_t c = 0; c < channels; c++) to[p * channels + c] = strip[c * step + p];
    }
  }
};

}  // namespace fastinfer
