// Windows of uint8 images on the GPU: arguments, choices, launchers. No torch, no CUDA types.
#pragma once

#include <cstdint>

#include "rounding.h"

namespace fastinfer::cuda {

// One axis of a pooled image: `out` windows over `size` pixels.
struct PoolAxis {
  int32_t size, out;
  int32_t kernel, stride, padding, dilation;  // kernel 0: windows cover the axis
};

// torch's number of windows; 0 or less where none fits.
int64_t pooled_size(int64_t size, int64_t kernel, int64_t stride, int64_t padding,
                    int64_t dilation, bool ceil_mode);

struct PoolCall {
  const uint8_t* x;  // [images, h.size, w.size, channels]
  uint8_t* out;      // [images, h.out, w.out, channels]
  int32_t images, channels;
  PoolAxis h, w;
};

// Of means: the multiplier is divided by each window's pixels.
struct AverageCall {
  PoolCall pool;
  float multiplier;
  int32_t zero_point;  // of x
  Rounding rounding;
  bool count_include_pad;
  int32_t* sums;  // [splits, images, h.out, w.out, channels]; where windows are split, else null
};

// Bytes that a thread takes at a time: 16, 4 or 1, which divide channels and both addresses. Pure.
int32_t pool_bytes(const PoolCall& call);

// How many blocks share the pixels of a window that covers the whole image; 0 where a thread takes
// all pixels of a window, as of small ones. Pure.
int32_t choose_splits(const PoolCall& call, int32_t multiprocessors);

// Outputs of one call, and bytes of one image: kernels count them in 32 bits.
constexpr int64_t kMostPooled = int64_t{1} << 31;

// Launch on a stream (a cudaStream_t); 0 or a cudaError_t.
int launch_max_pool(const PoolCall& call, void* stream);
// A thread for some channels of a window.
int launch_average(const AverageCall& call, void* stream);
// Blocks for a window, `splits` of them; 1: they answer in codes, else in sums.
int launch_split_average(const AverageCall& call, int32_t splits, void* stream);
// Codes of the sums of `splits` blocks.
int launch_finish_average(const AverageCall& call, int32_t splits, void* stream);

}  // namespace fastinfer::cuda
