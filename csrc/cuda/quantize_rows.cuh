// Float rows to uint8, each by its own range: [min(row, 0), max(row, 0)] in 256 steps.
#pragma once

#include "codes.cuh"
#include "quantize_rows.h"

namespace fastinfer::cuda {

constexpr int kRangeThreads = 256;
constexpr int kRangeWarps = kRangeThreads / 32;

// What a range makes of its values. Every operation is the reference's, rounded as it is there.
struct Range {
  float scale, inverse;
  int32_t zero_point;
  Rounding rounding;

  __device__ __forceinline__ Range(float low, float high) {
    const float span = __fmul_rn(__fadd_rn(high, -low), 1.0f / 255.0f);
    scale = span > 0.0f ? span : 1.0f;
    const float zero = __fdiv_rn(-low, scale);
    // NaN, of an infinite range, becomes 255.
    zero_point = __float2int_rn(fmaxf(fminf(zero, 255.0f), 0.0f));
    inverse = __fdiv_rn(1.0f, scale);
    rounding = {__int2float_rn(-zero_point), __int2float_rn(255 - zero_point),
                static_cast<uint32_t>(zero_point) * 0x01010101u};
  }

  __device__ __forceinline__ uint32_t codes(const float (&v)[4]) const {
    float f[4];
#pragma unroll
    for (int i = 0; i < 4; i++) f[i] = __fmul_rn(v[i], inverse);
    return codes_of(f, rounding);
  }
};

// The least and the largest of values and zero; NaN is passed over.
struct Bounds {
  float low = 0.0f, high = 0.0f;

  __device__ __forceinline__ void add(float v) {
    low = fminf(low, v);
    high = fmaxf(high, v);
  }

  // Of all lanes of a warp.
  __device__ __forceinline__ void meet() {
#pragma unroll
    for (int apart = 16; apart > 0; apart /= 2) {
      low = fminf(low, __shfl_xor_sync(0xFFFFFFFFu, low, apart));
      high = fmaxf(high, __shfl_xor_sync(0xFFFFFFFFu, high, apart));
    }
  }

  // Of all warps of a block; shared: [2][kWarps].
  template <int kWarps>
  __device__ __forceinline__ void meet_in_block(float (&shared)[2][kWarps]) {
    meet();
    if constexpr (kWarps > 1) {
      const auto thread = static_cast<int>(threadIdx.x);
      const int warp = thread / 32, lane = thread % 32;
      if (lane == 0) shared[0][warp] = low, shared[1][warp] = high;
      __syncthreads();
      low = shared[0][lane % kWarps];
      high = shared[1][lane % kWarps];
      meet();
    }
  }
};

// Up to four values from any address; zeros beyond.
__device__ __forceinline__ void load_values(float (&v)[4], const float* from, int valid,
                                            bool is_whole) {
  if (is_whole) {
    const float4 w = __ldg(reinterpret_cast<const float4*>(from));
    v[0] = w.x, v[1] = w.y, v[2] = w.z, v[3] = w.w;
    return;
  }
#pragma unroll
  for (int i = 0; i < 4; i++) v[i] = i < valid ? __ldg(from + i) : 0.0f;
}

// use(values, index of the first, how many, whether all four are aligned) for a block's share of a
// row from `begin` to `end`; begin is a multiple of 4.
template <int kThreads, class Use>
__device__ __forceinline__ void each_four(const float* row, int64_t begin, int64_t end,
                                          bool is_wide, const Use& use) {
#pragma unroll 4
  for (int64_t at = begin + 4 * static_cast<int>(threadIdx.x); at < end; at += 4 * kThreads) {
    const int valid = static_cast<int>(min(end - at, int64_t{4}));
    const bool is_whole = is_wide && valid == 4;
    float v[4];
    load_values(v, row + at, valid, is_whole);
    use(v, at, valid, is_whole);
  }
}

__device__ __forceinline__ void store_codes(uint8_t* to, uint32_t codes, int valid, bool is_whole) {
  Codes<4> word;
  word.words[0] = codes;
  if (is_whole) {
    word.store(to);
  } else {
    word.store_some(to, valid);
  }
}

// A block of kWarps warps for each row. is_wide: rows are whole, aligned 16 bytes, results 4.
template <int kWarps>
__global__ void __launch_bounds__(32 * kWarps)
    quantize_each_row(const __grid_constant__ RangeCall c, bool is_wide) {
  __shared__ float shared[2][kWarps];
  const int64_t row = blockIdx.x;
  const float* from = c.x + row * c.n;
  Bounds bounds;
  each_four<32 * kWarps>(from, 0, c.n, is_wide, [&](const float (&v)[4], int64_t, int, bool) {
#pragma unroll
    for (int i = 0; i < 4; i++) bounds.add(v[i]);
  });
  bounds.meet_in_block(shared);
  const Range range(bounds.low, bounds.high);
  uint8_t* to = c.out + row * c.n;
  each_four<32 * kWarps>(from, 0, c.n, is_wide,
                         [&](const float (&v)[4], int64_t at, int valid, bool is_whole) {
                           store_codes(to + at, range.codes(v), valid, is_whole);
                         });
  if (threadIdx.x == 0) {
    c.scale[row] = range.scale;
    c.zero_point[row] = range.zero_point;
  }
}

// Where a block's share of a row begins: whole fours.
__device__ __forceinline__ int64_t share_begin(const RangeCall& c, int32_t split) {
  const int64_t fours = (c.n + 3) / 4;
  return min(fours * split / c.splits * 4, c.n);
}

__global__ void __launch_bounds__(kRangeThreads)
    find_bounds(const __grid_constant__ RangeCall c, bool is_wide) {
  __shared__ float shared[2][kRangeWarps];
  const int64_t row = blockIdx.x / static_cast<uint32_t>(c.splits);
  const auto split = static_cast<int32_t>(blockIdx.x % static_cast<uint32_t>(c.splits));
  Bounds bounds;
  each_four<kRangeThreads>(c.x + row * c.n, share_begin(c, split), share_begin(c, split + 1),
                           is_wide, [&](const float (&v)[4], int64_t, int, bool) {
#pragma unroll
                             for (int i = 0; i < 4; i++) bounds.add(v[i]);
                           });
  bounds.meet_in_block(shared);
  if (threadIdx.x == 0) {
    float* to = c.bounds + 2 * int64_t{blockIdx.x};
    to[0] = bounds.low;
    to[1] = bounds.high;
  }
}

// The range of a row from those of its shares.
__device__ __forceinline__ Range range_of_shares(const RangeCall& c, int64_t row,
                                                 float (&shared)[2][kRangeWarps]) {
  Bounds bounds;
  const float* from = c.bounds + 2 * row * c.splits;
  for (auto i = static_cast<int32_t>(threadIdx.x); i < c.splits; i += kRangeThreads) {
    bounds.add(__ldg(from + 2 * i));
    bounds.add(__ldg(from + 2 * i + 1));
  }
  bounds.meet_in_block(shared);
  return {bounds.low, bounds.high};
}

__device__ __forceinline__ void note_range(const RangeCall& c, const Range& range, int64_t row,
                                           int32_t split) {
  if (split != 0 || threadIdx.x != 0) return;
  c.scale[row] = range.scale;
  c.zero_point[row] = range.zero_point;
}

__global__ void __launch_bounds__(kRangeThreads)
    quantize_split(const __grid_constant__ RangeCall c, bool is_wide) {
  __shared__ float shared[2][kRangeWarps];
  const int64_t row = blockIdx.x / static_cast<uint32_t>(c.splits);
  const auto split = static_cast<int32_t>(blockIdx.x % static_cast<uint32_t>(c.splits));
  const Range range = range_of_shares(c, row, shared);
  uint8_t* to = c.out + row * c.n;
  each_four<kRangeThreads>(c.x + row * c.n, share_begin(c, split), share_begin(c, split + 1),
                           is_wide, [&](const float (&v)[4], int64_t at, int valid, bool is_whole) {
                             store_codes(to + at, range.codes(v), valid, is_whole);
                           });
  note_range(c, range, row, split);
}

// The same, into images with a border of zero points. kChannels: that a thread takes at a time, 4
// where pixels are whole, aligned fours, else 1.
template <int kChannels>
__global__ void __launch_bounds__(kRangeThreads)
    quantize_padded(const __grid_constant__ RangeCall c) {
  __shared__ float shared[2][kRangeWarps];
  const int64_t row = blockIdx.x / static_cast<uint32_t>(c.splits);
  const auto split = static_cast<int32_t>(blockIdx.x % static_cast<uint32_t>(c.splits));
  const Range range = range_of_shares(c, row, shared);
  const int32_t width = c.width + 2 * c.pad_w, height = c.height + 2 * c.pad_h;
  const auto pieces = static_cast<uint32_t>(c.channels) / kChannels;
  const uint32_t places = pieces * width * height;  // launchers take fewer than 2^31
  const float* from = c.x + row * c.n;
  uint8_t* to = c.out + row * places * kChannels;
  const auto begin = static_cast<uint32_t>(uint64_t{places} * split / c.splits);
  const auto end = static_cast<uint32_t>(uint64_t{places} * (split + 1) / c.splits);
#pragma unroll 2
  for (uint32_t place = begin + threadIdx.x; place < end; place += kRangeThreads) {
    const uint32_t pixel = place / pieces, line = pixel / width;
    const int32_t y = static_cast<int32_t>(line) - c.pad_h;
    const int32_t x = static_cast<int32_t>(pixel - line * width) - c.pad_w;
    const bool is_inside = static_cast<uint32_t>(y) < static_cast<uint32_t>(c.height) &&
                           static_cast<uint32_t>(x) < static_cast<uint32_t>(c.width);
    Codes<kChannels> codes;
    codes.words[0] = range.rounding.zero_points;
    if (is_inside) {
      const uint32_t channel = (place - pixel * pieces) * kChannels;
      float v[4];
      load_values(v, from + (int64_t{y} * c.width + x) * c.channels + channel, kChannels,
                  kChannels == 4);
      codes.words[0] = range.codes(v);
    }
    codes.store(to + int64_t{place} * kChannels);
  }
  note_range(c, range, row, split);
}

}  // namespace fastinfer::cuda
