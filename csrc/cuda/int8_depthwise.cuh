// Depthwise convolution of an NHWC image: a lane has eight neighbouring channels.
//
// Sums over taps are dp4a's, four taps of a column of the kernel at a time: the bytes of four rows
// of the image are interleaved, so that a word holds one channel of each, which serves outputs below
// each other. Neighbouring lanes have neighbouring channels, so a warp's loads of 8 bytes are whole
// lines; nothing goes through shared memory, as L1 has what neighbours share.
#pragma once

#include "epilogue.cuh"
#include "int8_depthwise.h"
#include "windows.cuh"

namespace fastinfer::cuda {

constexpr int kDepthwiseThreads = 256, kStripThreads = 128;

// Blocks of strips that a multiprocessor holds at a time; registers are what limits them.
constexpr int strip_blocks(int kernel) { return kernel == 3 ? 3 : 2; }

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

// `word` one row or column on: its bytes move down, byte `i` of `bytes` comes in above.
__device__ __forceinline__ uint32_t append(uint32_t word, uint32_t bytes, int i) {
  return __byte_perm(word, bytes, 0x4321 + (i << 12));
}

// A square kernel of kKernel taps a side, for two outputs below each other.
//
// A dp4a takes rows 0 to 3 of a column of an output's window. What 5 x 5 taps have below, their edge,
// is summed along the row: four columns in one dp4a, and the last one, the corner. So an output
// takes 7 dp4a's for 25 taps, and both outputs use the same words of taps.
template <int kKernel, int kStride>
struct DepthwiseTile {
  static constexpr int kRows = 2;
  static constexpr int kInRows = (kRows - 1) * kStride + kKernel;
  // Outputs of a row that a column of the image lies under, and columns until they are all others.
  static constexpr int kLive = (kKernel + kStride - 1) / kStride, kPeriod = kLive * kStride;
  static constexpr bool kHasEdge = kKernel == 5;
  static_assert(kKernel == 3 || kKernel == 5);
  static_assert(kStride == 1 || kStride == 2);

  // Of each output, channel by channel.
  using Words = uint32_t[kRows][kLaneChannels];

  int32_t columns[kKernel][kLaneChannels];
  int32_t edge[kLaneChannels], corner[kLaneChannels];

  __device__ __forceinline__ DepthwiseTile(const GemmCall& c, int channel) {
    constexpr int kQuads = depthwise_quads(kKernel);
#pragma unroll
    for (int tap = 0; tap < kKernel; tap++) load_taps(c, tap * kQuads, channel, columns[tap]);
    if constexpr (kHasEdge) {
      int32_t below[kKernel][kLaneChannels];  // of which byte 0 is a tap
#pragma unroll
      for (int tap = 0; tap < kKernel; tap++) {
        load_taps(c, tap * kQuads + 1, channel, below[tap]);
      }
#pragma unroll
      for (int i = 0; i < kLaneChannels; i++) {
        const uint32_t front = __byte_perm(below[0][i], below[1][i], 0x40);
        const uint32_t back = __byte_perm(below[2][i], below[3][i], 0x40);
        edge[i] = static_cast<int32_t>(__byte_perm(front, back, 0x5410));
        corner[i] = static_cast<int32_t>(static_cast<uint32_t>(below[4][i]) << 24);
      }
    }
  }

  static __device__ __forceinline__ uint32_t four_channels(const uint2& row, int i) {
    return i < 4 ? row.x : row.y;
  }

  // Rows `first` to first + 3; what is beyond kInRows meets a tap that is 0.
  static __device__ __forceinline__ void interleave_from(int first, const uint2 (&rows)[kInRows],
                                                         uint32_t (&words)[kLaneChannels]) {
    const uint2 &a = rows[first], &b = rows[first + 1], &c = rows[first + 2];
    const uint2& d = rows[first + 3 < kInRows ? first + 3 : kInRows - 1];
    interleave({a.x, b.x, c.x, d.x}, words);
    interleave({a.y, b.y, c.y, d.y}, words + 4);
  }

  // The words of a column; `edges` have those of the three before, and take it.
  static __device__ __forceinline__ void take(const uint2 (&rows)[kInRows], Words& words,
                                              Words& edges) {
    interleave_from(0, rows, words[0]);
    if constexpr (kStride == 2) interleave_from(2, rows, words[1]);
#pragma unroll
    for (int i = 0; i < kLaneChannels; i++) {
      if constexpr (kStride == 1) {
        words[1][i] = kHasEdge ? append(words[0][i], four_channels(rows[kKernel - 1], i), i % 4)
                               : words[0][i] >> 8;
      }
      if constexpr (kHasEdge) {
#pragma unroll
        for (int row = 0; row < kRows; row++) {
          const uint32_t bytes = four_channels(rows[row * kStride + 4], i);
          edges[row][i] = append(edges[row][i], bytes, i % 4);
        }
      }
    }
  }

  // Adds column `tap` of windows to their sums.
  __device__ __forceinline__ void add(int tap, const Words& words, const Words& edges,
                                      int32_t (&sums)[kRows][kLaneChannels]) const {
#pragma unroll
    for (int row = 0; row < kRows; row++) {
#pragma unroll
      for (int i = 0; i < kLaneChannels; i++) {
        const auto multiply_add = [&](uint32_t bytes, int32_t taps) {
          sums[row][i] = ptx::dp4a_u8s8(bytes, static_cast<uint32_t>(taps), sums[row][i]);
        };
        multiply_add(words[row][i], columns[tap][i]);
        if (kHasEdge && tap == 3) multiply_add(edges[row][i], edge[i]);
        if (kHasEdge && tap == 4) multiply_add(edges[row][i], corner[i]);
      }
    }
  }
};

// Eight channels of kRows pixels below each other.
template <int kRows>
__device__ __forceinline__ void load_column(const Windows& w, const uint8_t* image, int32_t y0,
                                            int32_t x, uint32_t padding, uint2 (&rows)[kRows]) {
  const bool is_column = static_cast<uint32_t>(x) < static_cast<uint32_t>(w.width);
#pragma unroll
  for (int row = 0; row < kRows; row++) {
    const int32_t y = y0 + row;
    rows[row] = {padding, padding};
    if (is_column && static_cast<uint32_t>(y) < static_cast<uint32_t>(w.height)) {
      rows[row] = __ldg(reinterpret_cast<const uint2*>(image + (y * w.width + x) * w.channels));
    }
  }
}

// kKernel x kKernel taps, not dilated, kStride both ways. A lane walks along two rows of outputs,
// `strip` of them, and reads every column of the image once: sums of the outputs that a column lies
// under are live, and leave when their last column is behind. Bytes in, bytes out, no residual;
// channels in whole eights; x and the result aligned to 8 bytes.
template <int kKernel, int kStride>
__global__ void __launch_bounds__(kStripThreads, strip_blocks(kKernel))
    int8_depthwise_strip(const GemmCall c, const int32_t strip, const int32_t lanes_log2,
                         const int32_t row_blocks, const int32_t images) {
  using Tile = DepthwiseTile<kKernel, kStride>;
  const Windows& w = c.windows;
  const auto thread = static_cast<int32_t>(threadIdx.x);
  const auto block = static_cast<int32_t>(blockIdx.x);
  const int32_t lane = thread & ((1 << lanes_log2) - 1), line = thread >> lanes_log2;
  const int32_t lines = kStripThreads >> lanes_log2;
  // A row of outputs: channels first, then strips.
  const int32_t place = (block / row_blocks << lanes_log2) + lane;
  const int32_t chunks = c.n / kLaneChannels, at_strip = place / chunks;
  const int32_t channel = (place - at_strip * chunks) * kLaneChannels;
  const int32_t out_x = at_strip * strip;
  const int32_t out_y = (block % row_blocks * lines + line) * Tile::kRows;
  const Epilogue e = read_epilogue(c);
  check_depthwise(c);
  if (out_x >= w.out_width || out_y >= w.out_height) return;

  const uint32_t padding = __ldg(reinterpret_cast<const uint32_t*>(padding_bytes(c)));
  const int32_t first_y = out_y * kStride - w.pad_h, first_x = out_x * kStride - w.pad_w;
  const int32_t columns = (min(strip, w.out_width - out_x) - 1) * kStride + kKernel;
  const int64_t image_bytes = int64_t{w.height} * w.width * w.channels;
  const Tile taps(c, channel);
  ChannelValues values;
  load_channels(e, channel, values);
  for (auto image = static_cast<int32_t>(blockIdx.y); image < images;
       image += static_cast<int32_t>(gridDim.y)) {
    const uint8_t* from = c.x + image * image_bytes + channel;
    const int64_t pixel = (int64_t{image} * w.out_height + out_y) * w.out_width + out_x;
    const bool has_second = out_y + 1 < w.out_height;
    int32_t acc[Tile::kLive][Tile::kRows][kLaneChannels] = {};
    typename Tile::Words edges = {};
    uint2 next[Tile::kInRows];
    load_column(w, from, first_y, first_x, padding, next);
    for (int32_t first = 0; first < columns; first += Tile::kPeriod) {
#pragma unroll
      for (int phase = 0; phase < Tile::kPeriod; phase++) {
        const int32_t column = first + phase;
        if (column >= columns) break;
        typename Tile::Words words;
        Tile::take(next, words, edges);
        // On its way while this one is summed. Past the last column it is not used.
        load_column(w, from, first_y, first_x + column + 1, padding, next);
#pragma unroll
        for (int back = 0; back < Tile::kLive; back++) {
          const int tap = phase % kStride + back * kStride;
          if (tap >= kKernel) continue;
          auto& sums = acc[(phase / kStride - back + Tile::kLive) % Tile::kLive];
          taps.add(tap, words, edges, sums);
          if (tap != kKernel - 1) continue;
          // Outputs to the left of the strip end here too, in its first columns.
          const int32_t x = (column - tap) / kStride;
          if (column >= tap) {
            store_whole_bytes(e, values, pixel + x, channel, sums[0]);
            if (has_second) {
              store_whole_bytes(e, values, pixel + w.out_width + x, channel, sums[1]);
            }
          }
#pragma unroll
          for (int i = 0; i < kLaneChannels; i++) sums[0][i] = sums[1][i] = 0;
        }
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
  Epilogue e = read_epilogue(c);
  take_ranges(e, c);
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
