// Pooling of NHWC uint8 images: the largest code of each window, or the mean.
#pragma once

#include "codes.cuh"
#include "pool.h"

namespace fastinfer::cuda {

constexpr int kPoolThreads = 256;
constexpr int kSplitChannels = 256;  // of a block that shares a window

// Some channels of one output pixel.
struct PoolPlace {
  int32_t image, y, x, channel;
};

template <int kBytes>
__device__ __forceinline__ PoolPlace pool_place(const PoolCall& c, uint32_t place) {
  const auto pieces = static_cast<uint32_t>(c.channels) / kBytes;
  const uint32_t pixel = place / pieces;
  const uint32_t line = pixel / c.w.out, image = line / c.h.out;
  return {static_cast<int32_t>(image), static_cast<int32_t>(line - image * c.h.out),
          static_cast<int32_t>(pixel - line * c.w.out),
          static_cast<int32_t>((place - pixel * pieces) * kBytes)};
}

// Where an image's channels start.
__device__ __forceinline__ const uint8_t* pool_image(const PoolCall& c, int32_t image,
                                                     int32_t channel) {
  return c.x + int64_t{image} * c.h.size * c.w.size * c.channels + channel;
}

// A window's pixels on one axis that lie in the image, and what their sum is divided by.
struct Span {
  int32_t first, last, divisor;
};

__device__ __forceinline__ Span span_of(const PoolAxis& axis, int32_t i, bool include_pad) {
  if (axis.kernel == 0) {
    const int32_t first = i * axis.size / axis.out;
    const int32_t last = ((i + 1) * axis.size + axis.out - 1) / axis.out;
    return {first, last, last - first};
  }
  const int32_t start = i * axis.stride - axis.padding;
  const int32_t end = min(start + axis.kernel, axis.size + axis.padding);
  const int32_t first = max(start, 0), last = min(end, axis.size);
  return {first, last, include_pad ? end - start : last - first};
}

// The multiplier of a window's sum.
__device__ __forceinline__ float per_one(const AverageCall& c, int32_t divisor) {
  return __fdiv_rn(c.multiplier, __int2float_rn(divisor));
}

// Adds each byte to a sum of its own.
template <int kBytes>
__device__ __forceinline__ void add_codes(const Codes<kBytes>& codes, int32_t (&sums)[kBytes]) {
#pragma unroll
  for (int i = 0; i < kBytes; i++) {
    sums[i] = static_cast<int32_t>(
        __dp4a(codes.words[i / 4], 1u << (8 * (i % 4)), static_cast<uint32_t>(sums[i])));
  }
}

template <int kBytes>
__global__ void __launch_bounds__(kPoolThreads)
    int8_max_pool(const __grid_constant__ PoolCall c, uint32_t places) {
  const uint32_t place = blockIdx.x * kPoolThreads + threadIdx.x;
  if (place >= places) return;
  const PoolPlace at = pool_place<kBytes>(c, place);
  const uint8_t* image = pool_image(c, at.image, at.channel);
  const int32_t first_y = at.y * c.h.stride - c.h.padding;
  const int32_t first_x = at.x * c.w.stride - c.w.padding;
  Codes<kBytes> most{};  // no code is below 0
  for (int32_t row = 0; row < c.h.kernel; row++) {
    const int32_t y = first_y + row * c.h.dilation;
    if (static_cast<uint32_t>(y) >= static_cast<uint32_t>(c.h.size)) continue;
#pragma unroll 3
    for (int32_t column = 0; column < c.w.kernel; column++) {
      const int32_t x = first_x + column * c.w.dilation;
      if (static_cast<uint32_t>(x) >= static_cast<uint32_t>(c.w.size)) continue;
      Codes<kBytes> codes;
      codes.load(image + (y * c.w.size + x) * c.channels);
#pragma unroll
      for (int i = 0; i < Codes<kBytes>::kWords; i++) {
        most.words[i] = __vmaxu4(most.words[i], codes.words[i]);
      }
    }
  }
  most.store(c.out + int64_t{place} * kBytes);
}

// A thread sums some channels of a window.
template <int kBytes>
__global__ void __launch_bounds__(kPoolThreads)
    int8_average(const __grid_constant__ AverageCall c, uint32_t places) {
  const uint32_t place = blockIdx.x * kPoolThreads + threadIdx.x;
  if (place >= places) return;
  const PoolPlace at = pool_place<kBytes>(c.pool, place);
  const uint8_t* image = pool_image(c.pool, at.image, at.channel);
  const Span h = span_of(c.pool.h, at.y, c.count_include_pad);
  const Span w = span_of(c.pool.w, at.x, c.count_include_pad);
  int32_t sums[kBytes] = {};
  for (int32_t y = h.first; y < h.last; y++) {
#pragma unroll 4
    for (int32_t x = w.first; x < w.last; x++) {
      Codes<kBytes> codes;
      codes.load(image + (y * c.pool.w.size + x) * c.pool.channels);
      add_codes(codes, sums);
    }
  }
  const int32_t zero = c.zero_point * (h.last - h.first) * (w.last - w.first);
  const float scale = per_one(c, h.divisor * w.divisor);
  Codes<kBytes> out;
#pragma unroll
  for (int word = 0; word < Codes<kBytes>::kWords; word++) {
    float f[4] = {};
#pragma unroll
    for (int i = 0; i < 4 && i < kBytes; i++) {
      f[i] = __fmul_rn(__int2float_rn(sums[4 * word + i] - zero), scale);
    }
    out.words[word] = codes_of(f, c.rounding);
  }
  out.store(c.pool.out + int64_t{place} * kBytes);
}

__device__ __forceinline__ uint8_t average_code(const AverageCall& c, int32_t sum) {
  const int32_t pixels = c.pool.h.size * c.pool.w.size;
  const float f[4] = {__fmul_rn(__int2float_rn(sum - c.zero_point * pixels), per_one(c, pixels))};
  return static_cast<uint8_t>(codes_of(f, c.rounding));
}

// Windows of whole images: a block sums a share of the pixels of up to 256 channels. Neighbouring
// threads have neighbouring channels, as many as there are, and then the next pixel.
template <int kBytes>
__global__ void __launch_bounds__(kPoolThreads, 4)
    int8_split_average(const __grid_constant__ AverageCall c, int32_t splits) {
  // A byte of every thread, then the next one's, two banks on: no two of a request meet.
  __shared__ int32_t parts[kBytes][kPoolThreads + 2];
  __shared__ int32_t totals[kPoolThreads];
  const PoolCall& pool = c.pool;
  const auto thread = static_cast<int32_t>(threadIdx.x);
  const auto image = static_cast<int32_t>(blockIdx.x) / splits;
  const int32_t split = static_cast<int32_t>(blockIdx.x) - image * splits;
  const int32_t channel0 = static_cast<int32_t>(blockIdx.y) * kSplitChannels;
  const int32_t channels = min(kSplitChannels, pool.channels - channel0);
  const int32_t pieces = channels / kBytes, lines = kPoolThreads / pieces;
  const int32_t line = thread / pieces, piece = thread - line * pieces;
  const int32_t pixels = pool.h.size * pool.w.size;
  const auto first = static_cast<int32_t>(int64_t{split} * pixels / splits);
  const auto last = static_cast<int32_t>(int64_t{split + 1} * pixels / splits);
  int32_t sums[kBytes] = {};
  if (line < lines) {
    const uint8_t* from = pool_image(pool, image, channel0 + piece * kBytes);
#pragma unroll 4
    for (int32_t pixel = first + line; pixel < last; pixel += lines) {
      Codes<kBytes> codes;
      codes.load(from + pixel * pool.channels);
      add_codes(codes, sums);
    }
  }
#pragma unroll
  for (int i = 0; i < kBytes; i++) parts[i][thread] = sums[i];
  __syncthreads();
  // A channel's lines, shared by as many threads as there are for it.
  const int32_t sharers = kPoolThreads / channels, sharer = thread / channels;
  const int32_t channel = thread - sharer * channels;
  int32_t total = 0;
  if (sharer < sharers) {
    const int32_t* of_channel = &parts[channel % kBytes][channel / kBytes];
    for (int32_t at = sharer; at < lines; at += sharers) total += of_channel[at * pieces];
  }
  totals[thread] = total;
  __syncthreads();
  if (thread >= channels) return;
  for (int32_t at = 1; at < sharers; at++) total += totals[thread + at * channels];
  const int64_t place = int64_t{image} * pool.channels + channel0 + thread;
  if (splits == 1) {
    pool.out[place] = average_code(c, total);
  } else {
    c.sums[int64_t{split} * pool.images * pool.channels + place] = total;
  }
}

__global__ void __launch_bounds__(kPoolThreads)
    int8_finish_average(const __grid_constant__ AverageCall c, int32_t splits) {
  const int64_t places = int64_t{c.pool.images} * c.pool.channels;
  const int64_t place = int64_t{blockIdx.x} * kPoolThreads + threadIdx.x;
  if (place >= places) return;
  int32_t sum = 0;
  for (int32_t split = 0; split < splits; split++) sum += __ldg(c.sums + split * places + place);
  c.pool.out[place] = average_code(c, sum);
}

}  // namespace fastinfer::cuda
