// A convolution of up to 4 channels on mma.sync, without im2col: pixels are words in shared memory,
// and a fragment's word is the pixel under a tap.
//
// A step of K is 32 bytes, eight words: eight taps of a row of the kernel, or four of two rows. In a
// fragment of A, lane l has words l % 4 and l % 4 + 4 of output pixels l / 4 and l / 4 + 8: the pixel
// stride * (l / 4) + l % 4 of a row, so that a request's words lie side by side. Weights of taps that
// are not there are zero. A warp keeps the weights of 32 channels in registers.
#pragma once

#include "epilogue.cuh"
#include "int8_first_conv.h"
#include "mma.cuh"
#include "windows.cuh"

namespace fastinfer::cuda {

constexpr int kFirstThreads = 192, kFirstWarps = kFirstThreads / 32;
constexpr int kFirstPanel = 32;  // channels of a warp

template <int kTapsIn>
struct FirstSteps {
  static constexpr int kTaps = kTapsIn;  // rows of the kernel
  static constexpr bool kIsWide = kTaps > 4;  // eight taps of a row in a step, else four of two rows
  static constexpr int kCount = kIsWide ? kTaps : (kTaps + 1) / 2;

  // The row of the kernel that half `half` of a step's words is of, and the first of its columns.
  __host__ __device__ static constexpr int row(int step, int half) {
    return kIsWide ? step : 2 * step + half;
  }
  __host__ __device__ static constexpr int column(int half) { return kIsWide ? 4 * half : 0; }
};

// Weights of 32 channels: fragments of B for every step.
template <class Steps>
__device__ __forceinline__ void load_first_weights(const GemmCall& c, int panel, int lane,
                                                   uint32_t (&b)[Steps::kCount][4][2]) {
  const int32_t kw = c.windows.kw;
  const uint8_t* rows = c.packed + kPackedHeaderBytes +
                        (int64_t{panel} * kFirstPanel + lane / 4) * c.k_padded;
#pragma unroll
  for (int step = 0; step < Steps::kCount; step++) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int row = Steps::row(step, half), column = Steps::column(half) + lane % 4;
      const bool is_tap = row < Steps::kTaps && column < kw;
#pragma unroll
      for (int j = 0; j < 4; j++) {
        const uint8_t* from = rows + j * 8 * c.k_padded + (row * kw + column) * 4;
        b[step][j][half] = is_tap ? __ldg(reinterpret_cast<const uint32_t*>(from)) : 0u;
      }
    }
  }
}

// Where a tile of outputs is.
struct FirstTile {
  int32_t image, y, x;
};

__device__ __forceinline__ FirstTile first_tile(const FirstConvConfig& f, int32_t tile) {
  const int32_t line = tile / f.tiles_x, image = line / f.tiles_y;
  return {image, (line - image * f.tiles_y) * f.rows, (tile - line * f.tiles_x) * f.columns};
}

// The pixels under a tile, a word each, to shared memory.
__device__ __forceinline__ void load_first_pixels(const GemmCall& c, const FirstConvConfig& f,
                                                  const FirstTile& tile, uint32_t padding,
                                                  uint32_t* pixels) {
  const Windows& w = c.windows;
  const bool has_words = c.run == 4 && reinterpret_cast<uintptr_t>(c.x) % 4 == 0;
  const uint8_t* image = c.x + int64_t{tile.image} * w.height * w.width * w.channels;
  const int32_t first_y = tile.y * w.stride_h - w.pad_h, first_x = tile.x * w.stride_w - w.pad_w;
#pragma unroll 4
  for (auto i = static_cast<int32_t>(threadIdx.x); i < f.in_rows * f.pitch; i += kFirstThreads) {
    const int32_t row = i / f.pitch, y = first_y + row, x = first_x + i - row * f.pitch;
    uint32_t pixel = padding;
    if (static_cast<uint32_t>(y) < static_cast<uint32_t>(w.height) &&
        static_cast<uint32_t>(x) < static_cast<uint32_t>(w.width)) {
      const uint8_t* from = image + (y * w.width + x) * w.channels;
      pixel = has_words ? __ldg(reinterpret_cast<const uint32_t*>(from)) : few_bytes(from, c.run);
    }
    pixels[i] = pixel;
  }
}

template <int kTaps>
__global__ void __launch_bounds__(kFirstThreads, 2)
    int8_first_conv(const __grid_constant__ GemmCall c, const __grid_constant__ FirstConvConfig f) {
  using Steps = FirstSteps<kTaps>;
  extern __shared__ __align__(16) uint32_t pixels[];
  const Windows& w = c.windows;
  const auto thread = static_cast<int32_t>(threadIdx.x);
  const int32_t warp = thread / 32, lane = thread % 32;
  const int32_t panels = c.n_padded / kFirstPanel, of_block = min(panels, 2);
  const int32_t panel = static_cast<int32_t>(blockIdx.y) * of_block + warp % of_block;
  const int32_t first_column = panel * kFirstPanel + lane % 4 * kLaneChannels;
  const bool has_panel = panel < panels;
  uint32_t b[Steps::kCount][4][2] = {};
  if (has_panel) load_first_weights<Steps>(c, panel, lane, b);
  Epilogue e = read_epilogue(c);
  take_ranges(e, c);
  const uint32_t padding = __ldg(reinterpret_cast<const uint32_t*>(padding_bytes(c)));
  const int32_t across = f.columns / 16;
  for (auto at = static_cast<int32_t>(blockIdx.x); at < f.tiles;
       at += static_cast<int32_t>(gridDim.x)) {
    const FirstTile tile = first_tile(f, at);
    load_first_pixels(c, f, tile, padding, pixels);
    __syncthreads();
    for (int32_t i = warp / of_block; i < f.rows * across; i += kFirstWarps / of_block) {
      const int32_t row = i / across, column = (i - row * across) * 16;
      const int32_t y = tile.y + row, x = tile.x + column + lane / 4;
      if (!has_panel || y >= w.out_height || tile.x + column >= w.out_width) continue;
      const uint32_t* from =
          pixels + row * w.stride_h * f.pitch + (column + lane / 4) * w.stride_w + lane % 4;
      const int32_t behind = 8 * w.stride_w;  // to the pixels of the other eight outputs
      int32_t acc[4][4] = {};
#pragma unroll
      for (int step = 0; step < Steps::kCount; step++) {
        uint32_t a[4];
#pragma unroll
        for (int half = 0; half < 2; half++) {
          // What lies under a row that the kernel does not have is not read.
          const int taps_row = min(Steps::row(step, half), kTaps - 1);
          const uint32_t* word = from + taps_row * f.pitch + Steps::column(half);
          a[2 * half] = word[0];
          a[2 * half + 1] = word[behind];
        }
#pragma unroll
        for (int j = 0; j < 4; j++) ptx::mma_u8s8(acc[j], a, b[step][j][0], b[step][j][1]);
      }
      // Loaded again for each tile, not before the products: registers are the weights'.
      int32_t channel = first_column;
      ptx::keep_order(channel);
      ChannelValues values;
      if (!load_channels(e, channel, values)) continue;
      load_residual_channels(e, channel, values);
      const int64_t pixel = (int64_t{tile.image} * w.out_height + y) * w.out_width + x;
#pragma unroll
      for (int half = 0; half < 2; half++) {
        if (x + 8 * half >= w.out_width) continue;
        int32_t sums[kLaneChannels];
#pragma unroll
        for (int v = 0; v < kLaneChannels; v++) sums[v] = acc[v / 2][half * 2 + v % 2];
        store_channels(e, values, pixel + 8 * half, first_column, sums);
      }
    }
    __syncthreads();
  }
}

}  // namespace fastinfer::cuda
