// uint8 codes, element by element: sums and products of two tensors with maps of their own, tables,
// floats, concatenation. Memory bounds them all: a thread has 16 bytes, its neighbour the next.
#pragma once

#include "codes.cuh"
#include "pointwise.h"

namespace fastinfer::cuda {

constexpr int kPointwiseThreads = 256;
constexpr int kPointwiseBytes = 16;  // of a thread

using Piece = Codes<kPointwiseBytes>;

// Where this thread's bytes start.
__device__ __forceinline__ int64_t first_byte() {
  return (int64_t{blockIdx.x} * kPointwiseThreads + threadIdx.x) * kPointwiseBytes;
}

__device__ __forceinline__ int valid_bytes(int64_t at, int64_t count) {
  return static_cast<int>(min(count - at, int64_t{kPointwiseBytes}));
}

__device__ __forceinline__ Piece load_piece(const uint8_t* from, int valid, bool is_whole) {
  Piece piece;
  if (is_whole) {
    piece.load(from);
  } else {
    piece.load_some(from, valid);
  }
  return piece;
}

__device__ __forceinline__ void store_piece(const Piece& piece, uint8_t* to, int valid,
                                            bool is_whole) {
  if (is_whole) {
    piece.store(to);
  } else {
    piece.store_some(to, valid);
  }
}

// y's values for x's bytes from `at` on, kBytes neighbouring channels at a time.
template <int kBytes>
__device__ __forceinline__ Piece load_repeated(const PairCall& c, uint32_t at, int valid) {
  const uint32_t row = at / c.repeats.channels;
  uint32_t channel = at - row * c.repeats.channels;
  uint32_t image = row / c.repeats.pixels, pixel = row - image * c.repeats.pixels;
  Piece y{};
#pragma unroll
  for (int i = 0; i < kPointwiseBytes; i += kBytes) {
    if (i >= valid) break;
    Codes<kBytes> values;
    values.load(c.y + image * c.repeats.channels + channel);
    if constexpr (kBytes == 1) {
      y.words[i / 4] |= values.words[0] << (8 * (i % 4));
    } else {
      y.words[i / 4] = values.words[0], y.words[i / 4 + 1] = values.words[1];
    }
    channel += kBytes;
    if (channel < c.repeats.channels) continue;
    channel = 0;
    if (++pixel < c.repeats.pixels) continue;
    pixel = 0;
    image++;
  }
  return y;
}

// kRepeated: 0 where y lies as x; else how many of its channels are read at a time, 8 where they
// are whole, aligned eights, or 1. is_wide: x, the result and a y that lies as x are aligned to 16
// bytes.
template <bool kIsProduct, int kRepeated>
__global__ void __launch_bounds__(kPointwiseThreads)
    int8_pair(const __grid_constant__ PairCall c, bool is_wide) {
  const int64_t at = first_byte();
  if (at >= c.count) return;
  const int valid = valid_bytes(at, c.count);
  const bool is_whole = is_wide && valid == kPointwiseBytes;
  const Piece x = load_piece(c.x + at, valid, is_whole);
  Piece y;
  if constexpr (kRepeated == 0) {
    y = load_piece(c.y + at, valid, is_whole);
  } else {
    y = load_repeated<kRepeated>(c, static_cast<uint32_t>(at), valid);
  }
  const float x_shift = kCodeShift + static_cast<float>(c.x_zero_point);
  const float y_shift = kCodeShift + static_cast<float>(c.y_zero_point);
  Piece out;
#pragma unroll
  for (int word = 0; word < Piece::kWords; word++) {
    float f[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const float a = float_less(x.words[word], i, x_shift);
      const float b = float_less(y.words[word], i, y_shift);
      if constexpr (kIsProduct) {
        f[i] = __fmul_rn(__fmul_rn(a, b), c.x_multiplier);  // the first one is exact
      } else {
        f[i] = __fadd_rn(__fmul_rn(a, c.x_multiplier), __fmul_rn(b, c.y_multiplier));
      }
    }
    out.words[word] = codes_of(f, c.rounding);
    if constexpr (!kIsProduct) {
      if (c.table != nullptr) out.words[word] = look_up_word(c.table, out.words[word]);
    }
  }
  store_piece(out, c.out + at, valid, is_whole);
}

// is_wide: x and the result are aligned to 16 bytes.
__global__ void __launch_bounds__(kPointwiseThreads)
    int8_lookup(const __grid_constant__ LookupCall c, bool is_wide) {
  const int64_t at = first_byte();
  if (at >= c.count) return;
  const int valid = valid_bytes(at, c.count);
  const bool is_whole = is_wide && valid == kPointwiseBytes;
  Piece piece = load_piece(c.x + at, valid, is_whole);
#pragma unroll
  for (int word = 0; word < Piece::kWords; word++) {
    piece.words[word] = look_up_word(c.table, piece.words[word]);
  }
  store_piece(piece, c.out + at, valid, is_whole);
}

// Four codes at a time, so that what a warp stores is side by side. is_wide: x is aligned to 4
// bytes and the result to 16.
__global__ void __launch_bounds__(kPointwiseThreads)
    dequantize_codes(const __grid_constant__ DequantizeCall c, bool is_wide) {
  const int64_t block = int64_t{blockIdx.x} * kPointwiseThreads * kPointwiseBytes;
  const float shift = kCodeShift + static_cast<float>(c.zero_point);
#pragma unroll
  for (int i = 0; i < kPointwiseBytes / 4; i++) {
    const int64_t at = block + (i * kPointwiseThreads + threadIdx.x) * 4;
    const int valid = static_cast<int>(min(c.count - at, int64_t{4}));
    if (valid <= 0) break;
    const bool is_whole = is_wide && valid == 4;
    Codes<4> codes;
    if (is_whole) {
      codes.load(c.x + at);
    } else {
      codes.load_some(c.x + at, valid);
    }
    float f[4];
#pragma unroll
    for (int j = 0; j < 4; j++) f[j] = __fmul_rn(float_less(codes.words[0], j, shift), c.scale);
    if (is_whole) {
      *reinterpret_cast<float4*>(c.out + at) = {f[0], f[1], f[2], f[3]};
      continue;
    }
#pragma unroll
    for (int j = 0; j < 4; j++) {
      if (j < valid) c.out[at + j] = f[j];
    }
  }
}

// A thread has kBytes of a row of the result, all of one part.
template <int kBytes>
__global__ void __launch_bounds__(kPointwiseThreads)
    int8_cat(const __grid_constant__ CatCall c, uint32_t row_pieces, uint32_t pieces) {
  const uint32_t place = blockIdx.x * kPointwiseThreads + threadIdx.x;
  if (place >= pieces) return;
  const uint32_t row = place / row_pieces;
  const int64_t column = int64_t{place - row * row_pieces} * kBytes;
  int part = 0;
  while (part + 1 < c.count && column >= c.parts[part + 1].column) part++;
  const CatPart& p = c.parts[part];
  Codes<kBytes> codes;
  codes.load(p.x + row * p.width + (column - p.column));
  const float shift = kCodeShift + static_cast<float>(p.zero_point);
#pragma unroll
  for (int word = 0; word < Codes<kBytes>::kWords; word++) {
    float f[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
      f[i] = __fmul_rn(float_less(codes.words[word], i, shift), p.multiplier);
    }
    codes.words[word] = codes_of(f, c.rounding);
  }
  codes.store(c.out + row * c.step + column);
}

}  // namespace fastinfer::cuda
