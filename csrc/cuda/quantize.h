// Quantizing a float tensor on the GPU: arguments and launchers. No torch, no CUDA types.
#pragma once

#include <cstdint>

namespace fastinfer::cuda {

enum class FloatType : int32_t { kFloat32, kFloat16, kBfloat16 };

struct QuantizeCall {
  const void* x;
  uint8_t* out;
  int64_t count;
  float inverse;    // 1 / scale
  float low, high;  // 0 - zero_point, 255 - zero_point
  int32_t zero_point;
  // Of planes to be turned into NHWC.
  int64_t images, pixels;
  int32_t channels;
  FloatType type;  // of x
};

// Launch on a stream (a cudaStream_t); 0 or a cudaError_t.
int launch_quantize(const QuantizeCall& call, void* stream);
int launch_quantize_planes(const QuantizeCall& call, void* stream);

}  // namespace fastinfer::cuda
