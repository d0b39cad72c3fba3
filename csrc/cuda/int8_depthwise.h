// A depthwise convolution on the GPU: how it is run. No torch, no CUDA types.
#pragma once

#include "gemm.h"

namespace fastinfer::cuda {

// Words of four taps that a column of the kernel takes in a packed weight.
constexpr int32_t depthwise_quads(int32_t kh) { return (kh + 3) / 4; }

struct DepthwiseConfig {
  int32_t kernel, stride;  // 3 or 5, 1 or 2: the kernel for squares; 0: the one for anything
  int32_t strip;           // outputs of a row that a lane walks along
  int32_t lanes;           // threads of a block side by side on a row, a power of two
};

// The config for a call. Pure: no device is asked.
DepthwiseConfig choose_depthwise(const GemmCall& call, bool float_output);

// Launches on a stream (a cudaStream_t); 0 or a cudaError_t. m, n, windows, x and the pointers of
// the call matter: n channels, `n_padded` of the packed weight, and one group.
int launch_depthwise(const GemmCall& call, const DepthwiseConfig& config, void* stream);

}  // namespace fastinfer::cuda
