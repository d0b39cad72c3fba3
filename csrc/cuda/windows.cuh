// Reading A: where 16 bytes of a row of it lie in an NHWC image.
#pragma once

#include "../packed.h"
#include "gemm.h"

namespace fastinfer::cuda {

// Where the window of an output pixel starts; it may begin outside the image.
struct WindowOrigin {
  const uint8_t* image;  // at the group's first channel
  int32_t y, x;
};

__device__ __forceinline__ WindowOrigin window_origin(const GemmCall& c, int64_t row, int group) {
  constexpr int32_t kOutside = -(1 << 29);  // a row past the last one reads padding
  if (row >= c.m) return {c.x, kOutside, 0};
  const Windows& w = c.windows;
  const auto pixel = static_cast<uint32_t>(row);  // launchers take fewer than 2^31 rows
  const uint32_t line = pixel / w.out_width, image = line / w.out_height;
  const int32_t out_x = static_cast<int32_t>(pixel - line * w.out_width);
  const int32_t out_y = static_cast<int32_t>(line - image * w.out_height);
  const int64_t bytes = int64_t{w.height} * w.width * w.channels;
  return {c.x + image * bytes + group * c.run, out_y * w.stride_h - w.pad_h,
          out_x * w.stride_w - w.pad_w};
}

// The place on the K axis of B: tap (row, column) of the kernel, channel of the group.
struct WindowPlace {
  int32_t row, column, channel;

  __device__ __forceinline__ void advance(const GemmCall& c, int bytes) {
    channel += bytes;
    while (channel >= c.run_padded) {
      channel -= c.run_padded;
      if (++column == c.windows.kw) {
        column = 0;
        row++;
      }
    }
  }
};

// Taps on: 4 bytes of K each where runs are of 4.
__device__ __forceinline__ void advance_taps(const GemmCall& c, WindowPlace& p, int taps) {
  p.column += taps;
  while (p.column >= c.windows.kw) {
    p.column -= c.windows.kw;
    p.row++;
  }
}

// Whether a place of a window lies in the image; padding does not, nor what is past the last tap.
__device__ __forceinline__ bool is_inside(const Windows& w, const WindowOrigin& o,
                                          const WindowPlace& p) {
  const int32_t y = o.y + p.row * w.dilation_h, x = o.x + p.column * w.dilation_w;
  return static_cast<uint32_t>(y) < static_cast<uint32_t>(w.height) &&
         static_cast<uint32_t>(x) < static_cast<uint32_t>(w.width) && p.row < w.kh;
}

// The bytes of a window at a place, or null where it is not inside.
__device__ __forceinline__ const uint8_t* window_bytes(const GemmCall& c, const WindowOrigin& o,
                                                       const WindowPlace& p) {
  const Windows& w = c.windows;
  const int32_t y = o.y + p.row * w.dilation_h, x = o.x + p.column * w.dilation_w;
  return is_inside(w, o, p) ? o.image + (y * w.width + x) * w.channels + p.channel : nullptr;
}

// 16 bytes that hold the input's zero point: what padding is.
__device__ __forceinline__ const uint8_t* padding_bytes(const GemmCall& c) {
  return c.packed + kPaddingOffset;
}

// `run` bytes, at most 4, from any address: the aligned words that hold them, half as many loads as
// bytes. No word is read of which no byte is wanted.
__device__ __forceinline__ uint32_t few_bytes(const uint8_t* from, int32_t run) {
  const auto offset = static_cast<uint32_t>(reinterpret_cast<uintptr_t>(from) & 3);
  const auto* words = reinterpret_cast<const uint32_t*>(from - offset);
  const uint32_t low = __ldg(words);
  const uint32_t high = static_cast<int32_t>(offset) + run > 4 ? __ldg(words + 1) : 0;
  return __funnelshift_r(low, high, 8 * offset) & (0xFFFFFFFFu >> (32 - 8 * run));
}

// Four taps of at most 4 channels each.
__device__ __forceinline__ uint4 four_taps(const GemmCall& c, const WindowOrigin& o,
                                           WindowPlace place, bool has_words) {
  const uint32_t padding = __ldg(reinterpret_cast<const uint32_t*>(padding_bytes(c)));
  uint32_t words[4];
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const uint8_t* from = window_bytes(c, o, place);
    words[i] = padding;
    if (from != nullptr) {
      words[i] = has_words ? __ldg(reinterpret_cast<const uint32_t*>(from))
                           : few_bytes(from, c.run);
    }
    advance_taps(c, place, 1);
  }
  return {words[0], words[1], words[2], words[3]};
}

// 16 bytes of a window whose pixels are no whole 16 bytes, or not aligned.
__device__ __forceinline__ uint4 narrow_bytes(const GemmCall& c, const WindowOrigin& o,
                                              const WindowPlace& p, bool has_words) {
  const uint8_t* from = window_bytes(c, o, p);
  if (from == nullptr) return __ldg(reinterpret_cast<const uint4*>(padding_bytes(c)));
  const int32_t valid = c.run - p.channel;
  uint32_t words[4];
#pragma unroll
  for (int i = 0; i < 4; i++) {
    words[i] = 0;
    if (has_words) {
      if (4 * i < valid) words[i] = __ldg(reinterpret_cast<const uint32_t*>(from) + i);
      continue;
    }
#pragma unroll
    for (int j = 0; j < 4; j++) {
      if (4 * i + j < valid) words[i] |= static_cast<uint32_t>(__ldg(from + 4 * i + j)) << (8 * j);
    }
  }
  return {words[0], words[1], words[2], words[3]};
}

}  // namespace fastinfer::cuda
