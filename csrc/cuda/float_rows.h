// Layer norm and softmax of float rows on the GPU: arguments, launchers. No torch, no CUDA types.
#pragma once

#include <cstdint>

namespace fastinfer::cuda {

struct NormRows {
  const float* x;       // [rows, n]
  const float* weight;  // [n], or null
  const float* bias;    // [n], or null
  float* out;
  int64_t rows;
  int32_t n;
  float eps;
};

struct SoftmaxRows {
  const float* x;  // [rows, n]
  float* out;
  int64_t rows;
  int32_t n;
};

// Launch on a stream (a cudaStream_t); 0 or a cudaError_t.
int launch_layer_norm(const NormRows& call, void* stream);
int launch_softmax(const SoftmaxRows& call, void* stream);

}  // namespace fastinfer::cuda
