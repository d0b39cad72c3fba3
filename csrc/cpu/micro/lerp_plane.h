// Weighted means of four floats: two rows of a channel, two pixels of each.
#pragma once

#include "../kernel_table.h"

namespace fastinfer {
namespace {

// Along the rows of x first, each of which several rows of the result need, then between two of them.
// Compilers make vectors of both loops.
inline void lerp_plane(const LerpPlaneRun& run) {
  int64_t held[2] = {-1, -1};  // rows of x, mixed
  const auto mixed = [&](int64_t row, int64_t other) -> const float* {
    for (int slot = 0; slot < 2; slot++) {
      if (held[slot] == row) return run.mixed + slot * run.pixels;
    }
    const int slot = held[0] == other ? 1 : 0;
    held[slot] = row;
    float* const to = run.mixed + slot * run.pixels;
    const float* const x = run.x + row * run.row_step;
    for (int64_t j = 0; j < run.pixels; j++) {
      const float w1 = run.right_weight[j], w0 = 1.0f - w1;
      to[j] = x[run.left[j] * run.pixel_step] * w0 + x[run.right[j] * run.pixel_step] * w1;
    }
    return to;
  };
  float* out = run.out;
  for (int64_t i = run.first; i < run.last; i++, out += run.pixels) {
    const float* const top = mixed(run.top[i], run.bottom[i]);
    const float* const bottom = mixed(run.bottom[i], run.top[i]);
    const float h1 = run.bottom_weight[i], h0 = 1.0f - h1;
    for (int64_t j = 0; j < run.pixels; j++) out[j] = top[j] * h0 + bottom[j] * h1;
  }
}

}  // namespace
}  // namespace fastinfer
