// Splits addition, multiplication and concatenation of uint8 tensors over threads. Torch-free: the
// ops and the engine call it alike.
#pragma once

#include <cstdint>

#include "kernel_table.h"
#include "work.h"

namespace fastinfer {

// x and out: [images, pixels, channels], dense; so is y, or [images, channels] when it repeats for
// every pixel. out may be x, or a y that does not repeat. An NCHW x with a y that repeats is
// [images * channels, pixels, 1].
struct PairArgs {
  const uint8_t* x;
  const uint8_t* y;
  uint8_t* out;
  int64_t images, pixels, channels;
  bool y_repeats;

  int64_t bytes() const { return images * pixels * channels; }
};

struct AddArgs {
  PairArgs pair;
  Requantize map;  // its multiplier and x_zero_point are x's
  float y_multiplier;
  int32_t y_zero_point;
  const uint8_t* lookup;  // 256 entries the result goes through, or null
};

struct MulArgs {
  PairArgs pair;
  Requantize map;
  int32_t y_zero_point;
};

// One tensor of a concatenation: [rows, width], a row `step` bytes after the one before. Its first
// column is column `first` of the result.
struct CatPart {
  const uint8_t* x;
  int64_t width, step, first;
  Requantize map;

  bool is_copy() const {
    return map.multiplier == 1.0f && map.x_zero_point == map.out_zero_point && map.qmin == 0 &&
           map.qmax == 255;
  }
};

// out: [rows, *], a row `step` bytes after the one before; width: the sum of the parts'. NHWC along the
// channels: a row is a pixel; any other dimension: a row is all that lies behind one index of the
// dimensions before it.
struct CatArgs {
  const CatPart* parts;
  int64_t count;
  uint8_t* out;
  int64_t rows, width, step;
};

// The share of `thread` of 0..threads - 1.
void run_part(const AddArgs& args, const KernelTable& table, int thread, int threads);
void run_part(const MulArgs& args, const KernelTable& table, int thread, int threads);
void run_part(const CatArgs& args, const KernelTable& table, int thread, int threads);

Work work_of(const PairArgs& args);
Work work_of(const CatArgs& args);

}  // namespace fastinfer
