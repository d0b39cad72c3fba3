// A first layer on the GPU: a convolution of up to 4 channels. No torch, no CUDA types.
#pragma once

#include <optional>

#include "gemm.h"

namespace fastinfer::cuda {

// A block computes tiles of rows x columns outputs of all images, one after the other.
struct FirstConvConfig {
  int32_t taps;           // rows of the kernel: 3, 4 or 7, as the kernel is instantiated
  int32_t rows, columns;  // columns: a multiple of 16
  int32_t tiles_y, tiles_x, tiles;
  int32_t in_rows, pitch;  // of the pixels under a tile, a word each
  int32_t blocks;
};

// The config for a call, or none where another kernel has to do it. Pure: no device is asked.
std::optional<FirstConvConfig> choose_first_conv(const GemmCall& call, int32_t multiprocessors);

// Launches on a stream (a cudaStream_t); 0 or a cudaError_t.
int launch_first_conv(const GemmCall& call, const FirstConvConfig& config, void* stream);

}  // namespace fastinfer::cuda
