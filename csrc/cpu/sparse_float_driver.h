// Products of sparse float weights with planes, split over threads. Torch-free.
#pragma once

#include <cstdint>

#include "float_planes.h"
#include "kernel_table.h"

namespace fastinfer {

// Entries that are not 0, of every group for every step of kSparseFloatInputs inputs of every
// output: the last has the next one's entries behind its own. starts: [groups][steps][outputs], and
// one more.
struct SparseFloatWeight {
  const float* values;
  const uint8_t* places;
  const int32_t* starts;
  int64_t entries;
  int64_t outputs, inputs, groups;  // outputs and inputs of a group
  const float* bias;                // of all outputs, or null
  const float* residual;            // in the result's order, added to it; or null
  float clamp_min, clamp_max;

  int64_t steps() const { return divide_up(inputs, kSparseFloatInputs); }
};

class SparseFloatDriver {
 public:
  // A convolution's planes; out: [image][group][output][pixels].
  SparseFloatDriver(const KernelTable& table, const SparseFloatWeight& weight,
                    const FloatPlanes& planes, float* out);
  // A linear layer's rows, [positions][inputs]; out: [positions][outputs].
  SparseFloatDriver(const KernelTable& table, const SparseFloatWeight& weight, const float* rows,
                    int64_t positions, float* out);

  Work work() const;
  // The share of `thread` of 0..threads - 1, of as many threads as the driver was told of.
  void run_part(int thread, int threads) const;
  // Cuts outputs so that `threads` threads have each a part.
  void split_for(int threads);

 private:
  SparseFloatDriver(const KernelTable& table, const SparseFloatWeight& weight, float* out,
                    int64_t images, int64_t positions);

  struct Block {
    int64_t image, group, position, positions, output, outputs;
    int vectors;
  };

  void run_block(const Block& block, float* x, float* sums) const;
  // x = a block's rows, input by input.
  void take_rows(const Block& block, float* x) const;
  void write_rows(const Block& block, const float* sums) const;
  void write_planes(const Block& block, const float* sums) const;
  // n results from sums: with what is added to them and their bounds.
  void finish(const float* from, float* to, int64_t n) const;

  const SparseFloatKernels& kernels_;
  SparseFloatWeight weight_;
  const FloatPlanes* planes_ = nullptr;  // null: rows
  const float* rows_ = nullptr;
  float* out_;
  int64_t images_, positions_;        // positions of an image
  int64_t vectors_, blocks_, parts_;  // of an image's positions; blocks of them; parts of outputs
  bool finishes_;
};

}  // namespace fastinfer
