// What a product costs by estimate on each kernel and tile: cycles of a multiprocessor. Pure.
#pragma once

#include "gemm.h"

namespace fastinfer::cuda {

struct Tile {
  int32_t block_m, block_n, cluster;
};

// Constants of the sparse kernels' estimates. A stage is 128 of K. `bytes` and `multiply_adds` are
// of a cycle; `stage` is what a stage takes beside its products, `turn` and `panel` what storing
// takes for 32 pixels x 64 channels, `end` from the last products to the next tile's; `windows` is
// what copying windows takes against rows of a matrix.
//
// Fitted by bench/fit_gpu_sparse.py to an H100 (bench/results/gpu_sparse_h100.json, of commit
// f90c0a7; sums of sparse epilogues are clamped since, and the patch kernel waits for registers
// that it did not wait for then: to be fitted again to the next sweep).
struct SparseCosts {
  // 2:4 on wgmma.sp. meeting: of a cluster. far: on what one block copies where operands do not
  // stay in L2, which clusters share.
  double two_bytes = 67.3, two_multiply_adds = 14000, two_stage = 333, two_turn = 164;
  double two_end = 843, two_meeting = 1500, two_windows = 1.19, two_far = 1.6;
  // Channels that keep the same inputs: load: of the kept bytes of 64 pixels, of which 64 x 64 are
  // what `turn` is of.
  double gather_bytes = 37.7, gather_multiply_adds = 13900, gather_stage = 461, gather_load = 3.5;
  double gather_turn = 224, gather_end = 994, gather_windows = 1.32;
  // The same of patches, which come once for all taps. panel: storing 32 channels of 128 pixels.
  double patch_bytes = 41.6, patch_multiply_adds = 4650, patch_stage = 303, patch_panel = 234;
  double patch_end = 2300;
};

double wgmma_cycles(const Tile& tile, const GemmDesc& desc);
double mma_cycles(const Tile& tile, const GemmDesc& desc);

// 2:4 on wgmma.sp and on mma.sp; tiles are pixels times channels.
double sparse_wgmma_cycles(const Tile& tile, const GemmDesc& desc, const SparseCosts& costs = {});
double sparse_mma_cycles(const Tile& tile, const GemmDesc& desc);

// Tiles of other channels than the weight's are out of the question: their cost is larger than any.
double gather_cycles(const Tile& tile, const GemmDesc& desc, const SparseCosts& costs = {});
double patch_cycles(const GemmDesc& desc, const SparseCosts& costs = {});

}  // namespace fastinfer::cuda
