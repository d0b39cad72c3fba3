// float32 -> uint8: clamp(rint(x * inverse) + zero_point, 0, 255), and NCHW -> NHWC on the way.
#pragma once

#include <cstdint>

#include "quantize.h"

namespace fastinfer::cuda {

constexpr int kQuantizeThreads = 256;
constexpr int kQuantizeValues = 16;  // of a thread

__device__ __forceinline__ uint32_t quantize_value(float x, const QuantizeCall& c) {
  // NaN becomes 255. 1.5 * 2^23 is even: adding it rounds half to even.
  const float f = fmaxf(fminf(__fmul_rn(x, c.inverse), c.high), c.low);
  return (__float_as_uint(__fadd_rn(f, 12582912.0f)) + static_cast<uint32_t>(c.zero_point)) & 255u;
}

// In the order of memory. is_wide: both pointers are aligned to 16 bytes.
__global__ void __launch_bounds__(kQuantizeThreads) quantize_in_order(const QuantizeCall c,
                                                                      bool is_wide) {
  const int64_t block = int64_t{blockIdx.x} * kQuantizeThreads * kQuantizeValues;
  if (is_wide) {
    // Four vectors a thread, each read by neighbouring threads side by side.
#pragma unroll
    for (int i = 0; i < kQuantizeValues / 4; i++) {
      const int64_t at = block + (i * kQuantizeThreads + threadIdx.x) * 4;
      if (at + 4 <= c.count) {
        const float4 v = __ldg(reinterpret_cast<const float4*>(c.x + at));
        *reinterpret_cast<uint32_t*>(c.out + at) =
            quantize_value(v.x, c) | quantize_value(v.y, c) << 8 | quantize_value(v.z, c) << 16 |
            quantize_value(v.w, c) << 24;
      } else {
        for (int64_t j = at; j < c.count; j++) {
          c.out[j] = static_cast<uint8_t>(quantize_value(c.x[j], c));
        }
      }
    }
    return;
  }
#pragma unroll 4
  for (int i = 0; i < kQuantizeValues; i++) {
    const int64_t at = block + i * kQuantizeThreads + threadIdx.x;
    if (at < c.count) c.out[at] = static_cast<uint8_t>(quantize_value(c.x[at], c));
  }
}

// A block turns 32 channels of 128 pixels of one image: read along pixels, written along channels.
constexpr int kTurnChannels = 32, kTurnPixels = 128;

__global__ void __launch_bounds__(kQuantizeThreads) quantize_planes(const QuantizeCall c) {
  __shared__ uint8_t tile[kTurnPixels][kTurnChannels + 4];
  const int64_t pixel0 = int64_t{blockIdx.x} * kTurnPixels;
  const int channel0 = static_cast<int>(blockIdx.y) * kTurnChannels;
  const int thread = static_cast<int>(threadIdx.x);
  const int channels = min(kTurnChannels, c.channels - channel0);
  const int pixels = static_cast<int>(min(int64_t{kTurnPixels}, c.pixels - pixel0));
  for (int64_t image = blockIdx.z; image < c.images; image += gridDim.z) {
    const float* from = c.x + (image * c.channels + channel0) * c.pixels + pixel0;
    uint8_t* to = c.out + (image * c.pixels + pixel0) * c.channels + channel0;
    for (int i = thread; i < channels * kTurnPixels; i += kQuantizeThreads) {
      const int channel = i / kTurnPixels, pixel = i % kTurnPixels;
      if (pixel < pixels) {
        const float x = __ldg(from + channel * c.pixels + pixel);
        tile[pixel][channel] = static_cast<uint8_t>(quantize_value(x, c));
      }
    }
    __syncthreads();
    for (int i = thread; i < channels * pixels; i += kQuantizeThreads) {
      const int pixel = i / channels, channel = i - pixel * channels;
      to[int64_t{pixel} * c.channels + channel] = tile[pixel][channel];
    }
    __syncthreads();
  }
}

}  // namespace fastinfer::cuda
