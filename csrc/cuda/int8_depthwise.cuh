// Depthwise convolution of an NHWC image: a lane has eight neighbouring channels.
//
// Sums over taps are dp4a's, four taps of a column of the kernel at a time: the bytes of four rows
// of the image are interleaved, so that a word holds one channel of each, which serves outputs
// below each other. Neighbouring lanes have neighbouring channels, so a
// warp's loads of 8 bytes are whole lines; nothing goes through shared memory, as L1 has what
// neighbours share.
#pragma once

#include "epilogue.cuh"
#include "int8_depthwise.h"
#include "windows.cuh"

namespace fastinfer::cuda {

constexpr int kDepthwiseThreads = 256;

// out[c] holds byte c of four rows.
__device__ __forceinline__ void interleave(const uint32_t (&rows)[4], uint32_t* out) {
  const uint32_t front_low = __byte_perm(rows[0], rows[1], 0x5140);
  const uint32_t front_high = __byte_perm(rows[0], rows[1], 0x7362);
  const uint32_t back_low = __byte_perm(rows[2], rows[3], 0x5140);
  const uint32_t back_high = __byte_perm(rows[2], rows[3], 0x7362);
  out[0] = __byte_perm(front_low, back_low, 0x5410);
  out[1] = __byte_perm(front_low, back_low, 0x7632);
  out[2] = __byte_perm(front_high, back_high, 0x5410);
  out[3] = __byte_perm(front_high, back_high, 0x7632);
}

// Words of four taps of one column, from lane's first channel on.
__device__ __forceinline__ void load_taps(const GemmCall& c, int column_quad, int channel,
                                          int32_t (&words)[kLaneChannels]) {
  const auto* all = reinterpret_cast<const int32_t*>(c.packed + kPackedHeaderBytes);
  load8(words, all + int64_t{column_quad} * c.n_padded + channel);
}

// What the host takes the buffer for, beyond what read_epilogue has checked.
__device__ __forceinline__ void check_depthwise(const GemmCall& c) {
  const auto& h = *reinterpret_cast<const PackedHeader*>(c.packed);
  const bool is_other = (h.op != static_cast<int32_t>(PackedOp::kDepthwiseConv2d)) |
                        (h.kh != c.windows.kh) | (h.kw != c.windows.kw);
  if (is_other) __trap();
}

// The rows of a column that kRows outputs below each other need, for kHeight taps that are not
// dilated.
template <int kHeight, int kStride, int kRows>
struct DepthwiseTile {
  static constexpr int kInRows = (kRows - 1) * kStride + kHeight;
  static constexpr int kInQuads = (kInRows + 3) / 4;
  static constexpr int kTapQuads = (kHeight + 3) / 4;
  static_assert(kInQuads <= 2 && kTapQuads <= 2);

  // The four taps that an output `down` rows below the first has in rows 4 kQuad .. of the image.
  template <int kDown, int kQuad>
  static __device__ __forceinline__ uint32_t taps(const int32_t (&words)[kTapQuads][kLaneChannels],
                                                  int i) {
    constexpr int kShift = kDown % 4 * 8, kAt = kQuad - kDown / 4;
    uint32_t upper = 0, lower = 0;
    if constexpr (kAt >= 0 && kAt < kTapQuads) upper = static_cast<uint32_t>(words[kAt][i]);
    if constexpr (kAt >= 1 && kAt <= kTapQuads) lower = static_cast<uint32_t>(words[kAt - 1][i]);
    return kShift == 0 ? upper : __funnelshift_l(lower, upper, kShift);
  }

  // Whether that output has taps there at all.
  template <int kDown, int kQuad>
  static constexpr bool has_taps = kDown < 4 * kQuad + 4 && kDown + kHeight > 4 * kQuad;

  template <int kRow, int kQuad>
  static __device__ __forceinline__ void add(const uint32_t (&in)[kInQuads][kLaneChannels],
                                             const int32_t (&words)[kTapQuads][kLaneChannels],
                                             int32_t (&acc)[kLaneChannels]) {
    if constexpr (kQuad < kInQuads) {
      if constexpr (has_taps<kRow * kStride, kQuad>) {
#pragma unroll
        for (int i = 0; i < kLaneChannels; i++) {
          acc[i] = ptx::dp4a_u8s8(in[kQuad][i], taps<kRow * kStride, kQuad>(words, i), acc[i]);
        }
      }
      add<kRow, kQuad + 1>(in, words, acc);
    }
  }
};

// Eight channels of kRows pixels below each other; the rest of the array is not read with a weight.
template <int kRows, int kWords>
__device__ __forceinline__ void load_column(const Windows& w, const uint8_t* image, int32_t y0,
                                            int32_t x, uint32_t padding, uint2 (&rows)[kWords]) {
  const bool is_column = static_cast<uint32_t>(x) < static_cast<uint32_t>(w.width);
#pragma unroll
  for (int row = 0; row < kWords; row++) {
    const int32_t y = y0 + row;
    rows[row] = {padding, padding};
    if (row < kRows && is_column && static_cast<uint32_t>(y) < static_cast<uint32_t>(w.height)) {
      rows[row] = __ldg(reinterpret_cast<const uint2*>(image + (y * w.width + x) * w.channels));
    }
  }
}

// kHeight taps of a column, not dilated; kStride down. A lane has kRows x kColumns outputs. Bytes in,
// bytes out; channels in whole eights; x, the residual and the result aligned to 8 bytes.
template <int kHeight, int kStride, int kRows, int kColumns>
__global__ void __launch_bounds__(kDepthwiseThreads, 2)
    int8_depthwise_tiled(const GemmCall c, const int32_t lanes_log2, const int32_t row_blocks,
                          const int32_t images) {
  using Tile = DepthwiseTile<kHeight, kStride, kRows>;
  static_assert(kRows <= 2);
  const Windows& w = c.windows;
  const auto thread = static_cast<int32_t>(threadIdx.x);
  const auto block = static_cast<int32_t>(blockIdx.x);
  const int32_t lane = thread & ((1 << lanes_log2) - 1), line = thread >> lanes_log2;
  const int32_t lines = kDepthwiseThreads >> lanes_log2;
  // A row of outputs: channels first, then columns.
  const int32_t place = (block / row_blocks << lanes_log2) + lane;
  const int32_t chunks = c.n / kLaneChannels, column_tile = place / chunks;
  const int32_t channel = (place - column_tile * chunks) * kLaneChannels;
  const int32_t out_x = column_tile * kColumns;
  const int32_t out_y = (block % row_blocks * lines + line) * kRows;
  const Epilogue e = read_epilogue(c);
  check_depthwise(c);
  if (out_x >= w.out_width || out_y >= w.out_height) return;

  const uint32_t padding = __ldg(reinterpret_cast<const uint32_t*>(padding_bytes(c)));
  const int32_t first_y = out_y * kStride - w.pad_h, first_x = out_x * w.stride_w - w.pad_w;
  const int64_t image_bytes = int64_t{w.height} * w.width * w.channels;
  for (auto image = static_cast<int32_t>(blockIdx.y); image < images;
       image += static_cast<int32_t>(gridDim.y)) {
    const uint8_t* from = c.x + image * image_bytes + channel;
    int32_t acc[kRows][kColumns][kLaneChannels] = {};
    // Not unrolled: the taps of all columns at once do not fit the registers, and ptxas would load
    // them all.
#pragma unroll 1
    for (int32_t tap = 0; tap < w.kw; tap++) {
      int32_t words[Tile::kTapQuads][kLaneChannels];
#pragma unroll
      for (int quad = 0; quad < Tile::kTapQuads; quad++) {
        load_taps(c, tap * Tile::kTapQuads + quad, channel, words[quad]);
      }
#pragma unroll
      for (int i = 0; i < kColumns; i++) {
        const int32_t x = first_x + i * w.stride_w + tap * w.dilation_w;
        uint2 rows[4 * Tile::kInQuads];
        load_column<Tile::kInRows>(w, from, first_y, x, padding, rows);
        uint32_t in[Tile::kInQuads][kLaneChannels];
#pragma unroll
        for (int quad = 0; quad < Tile::kInQuads; quad++) {
          const uint2* r = rows + 4 * quad;
          interleave({r[0].x, r[1].x, r[2].x, r[3].x}, in[quad]);
          interleave({r[0].y, r[1].y, r[2].y, r[3].y}, in[quad] + 4);
        }
        Tile::template add<0, 0>(in, words, acc[0][i]);
        if constexpr (kRows > 1) Tile::template add<1, 0>(in, words, acc[1][i]);
      }
    }
    ChannelValues values;  // not before: the sums take the registers
    load_channels(e, channel, values);
    load_residual_channels(e, channel, values);
    const int64_t line_of = int64_t{image} * w.out_height + out_y;
#pragma unroll
    for (int row = 0; row < kRows; row++) {
#pragma unroll
      for (int i = 0; i < kColumns; i++) {
        if (out_y + row >= w.out_height || out_x + i >= w.out_width) continue;
        const int64_t pixel = (line_of + row) * w.out_width + out_x + i;
        store_whole_bytes(e, values, pixel, channel, acc[row][i]);
      }
    }
  }
}

// `valid` bytes of eight from any address.
__device__ __forceinline__ uint2 eight_bytes(const uint8_t* from, int32_t valid, bool is_wide) {
  if (is_wide) return __ldg(reinterpret_cast<const uint2*>(from));
  uint2 out{0, 0};
#pragma unroll
  for (int i = 0; i < kLaneChannels; i++) {
    if (i < valid) (i < 4 ? out.x : out.y) |= static_cast<uint32_t>(__ldg(from + i)) << 8 * (i % 4);
  }
  return out;
}

// Any kernel, stride, dilation, channels and result: one output a lane. has_vectors: channels are
// whole eights and x is aligned to 8 bytes.
__global__ void __launch_bounds__(kDepthwiseThreads)
    int8_depthwise_any(const GemmCall c, const int32_t lanes_log2, const bool has_vectors) {
  const Windows& w = c.windows;
  const auto thread = static_cast<int32_t>(threadIdx.x);
  const int32_t lane = thread & ((1 << lanes_log2) - 1);
  const int32_t channel = ((static_cast<int32_t>(blockIdx.y) << lanes_log2) + lane) * kLaneChannels;
  const int64_t pixel = int64_t{blockIdx.x} * (kDepthwiseThreads >> lanes_log2) +
                        (thread >> lanes_log2);
  const Epilogue e = read_epilogue(c);
  check_depthwise(c);
  ChannelValues values;
  if (pixel >= c.m || !load_channels(e, channel, values)) return;
  load_residual_channels(e, channel, values);
  const uint32_t padding = __ldg(reinterpret_cast<const uint32_t*>(padding_bytes(c)));
  const WindowOrigin origin = window_origin(c, pixel, 0);
  const int32_t quads = depthwise_quads(w.kh), valid = c.n - channel;
  int32_t acc[kLaneChannels] = {};
  for (int32_t column = 0; column < w.kw; column++) {
    for (int32_t quad = 0; quad < quads; quad++) {
      uint2 rows[4];
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const WindowPlace place{4 * quad + i, column, channel};
        const uint8_t* from = window_bytes(c, origin, place);
        rows[i] = {padding, padding};
        if (from != nullptr) rows[i] = eight_bytes(from, valid, has_vectors);
      }
      uint32_t in[kLaneChannels];
      interleave({rows[0].x, rows[1].x, rows[2].x, rows[3].x}, in);
      interleave({rows[0].y, rows[1].y, rows[2].y, rows[3].y}, in + 4);
      int32_t words[kLaneChannels];
      load_taps(c, column * quads + quad, channel, words);
#pragma unroll
      for (int i = 0; i < kLaneChannels; i++) {
        acc[i] = ptx::dp4a_u8s8(in[i], static_cast<uint32_t>(words[i]), acc[i]);
      }
    }
  }
  store_channels(e, values, pixel, channel, acc);
}

}  // namespace fastinfer::cuda
