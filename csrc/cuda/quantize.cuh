// float32 -> uint8: clamp(rint(x * inverse) + zero_point, 0, 255), and NCHW -> NHWC on the way.
#pragma once

#include <cstdint>
#include <type_traits>

#include "mma.cuh"
#include "quantize.h"

namespace fastinfer::cuda {

constexpr int kQuantizeThreads = 256;
constexpr int kQuantizeValues = 16;  // of a thread

__device__ __forceinline__ uint32_t quantize_value(float x, const QuantizeCall& c) {
  // NaN becomes 255. 1.5 * 2^23 is even: adding it rounds half to even.
  const float f = fmaxf(fminf(__fmul_rn(x, c.inverse), c.high), c.low);
  return (__float_as_uint(__fadd_rn(f, 12582912.0f)) + static_cast<uint32_t>(c.zero_point)) & 255u;
}

// x's values, as float32 whatever their type.
template <FloatType kType>
struct Values {
  static constexpr bool kIsFloat32 = kType == FloatType::kFloat32;
  using Raw = std::conditional_t<kIsFloat32, float, uint16_t>;

  __device__ __forceinline__ static const Raw* of(const QuantizeCall& c) {
    return static_cast<const Raw*>(c.x);
  }

  __device__ __forceinline__ static float value(uint32_t bits) {
    return kType == FloatType::kFloat16 ? ptx::float_of_half(static_cast<uint16_t>(bits))
                                        : __uint_as_float(bits << 16);
  }

  __device__ __forceinline__ static float one(const Raw* from) {
    if constexpr (kIsFloat32) return __ldg(from);
    return value(__ldg(reinterpret_cast<const uint16_t*>(from)));
  }

  // Four neighbours, aligned to as many bytes.
  __device__ __forceinline__ static float4 four(const Raw* from) {
    if constexpr (kIsFloat32) {
      return __ldg(reinterpret_cast<const float4*>(from));
    } else {
      const uint2 v = __ldg(reinterpret_cast<const uint2*>(from));
      return {value(v.x & 0xFFFFu), value(v.x >> 16), value(v.y & 0xFFFFu), value(v.y >> 16)};
    }
  }
};

// In the order of memory. is_wide: both pointers are aligned to 16 bytes.
template <FloatType kType>
__global__ void __launch_bounds__(kQuantizeThreads) quantize_in_order(const QuantizeCall c,
                                                                      bool is_wide) {
  const auto* x = Values<kType>::of(c);
  const int64_t block = int64_t{blockIdx.x} * kQuantizeThreads * kQuantizeValues;
  if (is_wide) {
    // Four vectors a thread, each read by neighbouring threads side by side.
#pragma unroll
    for (int i = 0; i < kQuantizeValues / 4; i++) {
      const int64_t at = block + (i * kQuantizeThreads + threadIdx.x) * 4;
      if (at + 4 <= c.count) {
        const float4 v = Values<kType>::four(x + at);
        *reinterpret_cast<uint32_t*>(c.out + at) =
            quantize_value(v.x, c) | quantize_value(v.y, c) << 8 | quantize_value(v.z, c) << 16 |
            quantize_value(v.w, c) << 24;
      } else {
        for (int64_t j = at; j < c.count; j++) {
          c.out[j] = static_cast<uint8_t>(quantize_value(Values<kType>::one(x + j), c));
        }
      }
    }
    return;
  }
#pragma unroll 4
  for (int i = 0; i < kQuantizeValues; i++) {
    const int64_t at = block + i * kQuantizeThreads + threadIdx.x;
    if (at >= c.count) break;
    c.out[at] = static_cast<uint8_t>(quantize_value(Values<kType>::one(x + at), c));
  }
}

// Images of up to 4 channels: a thread has four neighbouring pixels of every plane, a block writes
// whole words, side by side. has_vectors: planes are whole, aligned fours of values.
template <FloatType kType, int kChannels>
__global__ void __launch_bounds__(kQuantizeThreads, 5)
    quantize_few_planes(const QuantizeCall c, bool has_vectors) {
  constexpr int kPixels = 4 * kQuantizeThreads;
  __shared__ __align__(16) uint32_t words[kChannels * kQuantizeThreads];
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t pixel0 = int64_t{blockIdx.x} * kPixels;
  const int pixels = static_cast<int>(min(int64_t{kPixels}, c.pixels - pixel0));
  for (int64_t image = blockIdx.y; image < c.images; image += gridDim.y) {
    const auto* from = Values<kType>::of(c) + image * kChannels * c.pixels + pixel0;
    float values[kChannels][4];
#pragma unroll
    for (int channel = 0; channel < kChannels; channel++) {
      const auto* plane = from + channel * c.pixels + 4 * thread;
      if (has_vectors && 4 * thread < pixels) {
        const float4 v = Values<kType>::four(plane);
        values[channel][0] = v.x, values[channel][1] = v.y;
        values[channel][2] = v.z, values[channel][3] = v.w;
      } else {
#pragma unroll
        for (int i = 0; i < 4; i++) {
          const bool valid = 4 * thread + i < pixels;
          values[channel][i] = valid ? Values<kType>::one(plane + i) : 0.0f;
        }
      }
    }
#pragma unroll
    for (int word = 0; word < kChannels; word++) {
      uint32_t packed = 0;
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const int at = 4 * word + i;
        packed |= quantize_value(values[at % kChannels][at / kChannels], c) << (8 * i);
      }
      words[thread * kChannels + word] = packed;
    }
    __syncthreads();
    uint8_t* to = c.out + (image * c.pixels + pixel0) * kChannels;
    if (has_vectors) {
      for (int i = thread; i < pixels * kChannels / 4; i += kQuantizeThreads) {
        reinterpret_cast<uint32_t*>(to)[i] = words[i];
      }
    } else {
      const auto* bytes = reinterpret_cast<const uint8_t*>(words);
      for (int i = thread; i < pixels * kChannels; i += kQuantizeThreads) to[i] = bytes[i];
    }
    __syncthreads();
  }
}

// A block turns 64 channels of 64 pixels of one image: read along pixels, written along channels.
// has_vectors: channels are whole 16 and the result is aligned to 16 bytes.
constexpr int kTurnChannels = 64, kTurnPixels = 64, kTurnWords = kTurnChannels / 4;

template <FloatType kType>
__global__ void __launch_bounds__(kQuantizeThreads)
    quantize_planes(const QuantizeCall c, bool has_vectors) {
  constexpr int kGroups = kQuantizeThreads / kTurnPixels, kSteps = kTurnWords / kGroups;
  __shared__ uint32_t tile[kTurnPixels][kTurnWords + 1];  // four channels a word
  const int64_t pixel0 = int64_t{blockIdx.x} * kTurnPixels;
  const int channel0 = static_cast<int>(blockIdx.y) * kTurnChannels;
  const int thread = static_cast<int>(threadIdx.x);
  const int mine = thread % kTurnPixels, group = thread / kTurnPixels;
  const int channels = min(kTurnChannels, c.channels - channel0);
  const int pixels = static_cast<int>(min(int64_t{kTurnPixels}, c.pixels - pixel0));
  for (int64_t image = blockIdx.z; image < c.images; image += gridDim.z) {
    const auto* from =
        Values<kType>::of(c) + (image * c.channels + channel0) * c.pixels + pixel0 + mine;
    float values[kSteps][4];  // all on their way before the first is used
#pragma unroll
    for (int step = 0; step < kSteps; step++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const int channel = (step * kGroups + group) * 4 + i;
        const bool valid = channel < channels && mine < pixels;
        values[step][i] = valid ? Values<kType>::one(from + channel * c.pixels) : 0.0f;
      }
    }
#pragma unroll
    for (int step = 0; step < kSteps; step++) {
      const float* v = values[step];
      tile[mine][step * kGroups + group] =
          quantize_value(v[0], c) | quantize_value(v[1], c) << 8 | quantize_value(v[2], c) << 16 |
          quantize_value(v[3], c) << 24;
    }
    __syncthreads();
    uint8_t* to = c.out + (image * c.pixels + pixel0) * c.channels + channel0;
    if (has_vectors) {
      constexpr int kVectors = kTurnWords / 4;
      const int vector = thread % kVectors;
      for (int pixel = thread / kVectors; pixel < pixels; pixel += kQuantizeThreads / kVectors) {
        if (16 * vector >= channels) continue;
        const uint32_t* w = &tile[pixel][4 * vector];
        *reinterpret_cast<uint4*>(to + int64_t{pixel} * c.channels + 16 * vector) = {w[0], w[1],
                                                                                     w[2], w[3]};
      }
    } else {
      for (int i = thread; i < channels * pixels; i += kQuantizeThreads) {
        const int pixel = i / channels, channel = i - pixel * channels;
        to[int64_t{pixel} * c.channels + channel] =
            static_cast<uint8_t>(tile[pixel][channel / 4] >> (channel % 4 * 8));
      }
    }
    __syncthreads();
  }
}

}  // namespace fastinfer::cuda
