// uint8 images of another height and width on the GPU: arguments and launcher. No torch, no CUDA.
#pragma once

#include <cstdint>

namespace fastinfer::cuda {

// One axis: `out` pixels from `size`, `scale` pixels of x apart.
struct UpsampleAxis {
  int32_t size, out;
  float scale;
  float offset;  // of pixels' middles: 0.5, or 0 where corners are aligned
};

// As torch finds the scale; factor is 0 where the sizes say it. Pure.
UpsampleAxis nearest_axis(int64_t size, int64_t out, double factor);
UpsampleAxis linear_axis(int64_t size, int64_t out, double factor, bool align_corners);

struct UpsampleCall {
  const uint8_t* x;  // [images, h.size, w.size, channels]
  uint8_t* out;      // [images, h.out, w.out, channels]
  int32_t images, channels;
  UpsampleAxis h, w;
  bool bilinear;
};

// Bytes that a thread takes at a time: 16, 4 or 1, which divide channels and both addresses. Pure.
int32_t upsample_bytes(const UpsampleCall& call);

// Pieces of one result and bytes of one image: the kernel counts them in 32 bits.
constexpr int64_t kMostUpsampled = int64_t{1} << 31;

// Launches on a stream (a cudaStream_t); 0 or a cudaError_t.
int launch_upsample(const UpsampleCall& call, void* stream);

}  // namespace fastinfer::cuda
