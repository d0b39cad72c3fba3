// Windows of uint8 images, split over threads. Torch-free: the ops and the engine call it alike.
#pragma once

#include <cstdint>

#include "kernel_table.h"
#include "work.h"

namespace fastinfer {

// One axis of a pooled image: `out` windows over `size` pixels.
struct PoolAxis {
  int64_t size, out;
  int64_t kernel, stride, padding, dilation;
  bool is_adaptive;  // windows cover the axis; kernel to dilation are unused

  // torch's windows; `out` may be 0 or less where none fits.
  static PoolAxis of(int64_t size, int64_t kernel, int64_t stride, int64_t padding,
                     int64_t dilation, bool ceil_mode);
  static PoolAxis adaptive(int64_t size, int64_t out) { return {size, out, 0, 0, 0, 0, true}; }
};

// x: [batch, h.size, w.size, channels], out: [batch, h.out, w.out, channels], pixels x_step and
// out_step bytes apart, else dense.
struct MaxPoolArgs {
  const uint8_t* x;
  uint8_t* out;
  int64_t batch, channels, x_step, out_step;
  PoolAxis h, w;
};

// Sizes as MaxPoolArgs', dilation 1.
struct AvgPoolArgs {
  const uint8_t* x;
  uint8_t* out;
  int64_t batch, channels, x_step, out_step;
  PoolAxis h, w;
  bool count_include_pad;
  Requantize map;  // of a window of one pixel: the multiplier is divided by each window's pixels
};

// The share of `thread` of 0..threads - 1.
void run_part(const MaxPoolArgs& args, const KernelTable& table, int thread, int threads);
void run_part(const AvgPoolArgs& args, const KernelTable& table, int thread, int threads);

Work work_of(const MaxPoolArgs& args);
Work work_of(const AvgPoolArgs& args);

}  // namespace fastinfer
