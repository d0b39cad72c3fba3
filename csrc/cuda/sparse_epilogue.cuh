// The epilogue where accumulators have channels down and pixels along: a lane holds two
// neighbouring channels of many pixels. The steps are those of epilogue.cuh.
//
// Bytes turn in shared memory, 32 pixels of a warpgroup's 64 channels at a time: the codes of two
// channels are a 16-bit element, of which stmatrix stores 8 x 8 transposed, so that 16 bytes of a
// pixel, a warp's channels, lie together. What comes out are 16 bytes a thread, 64 of a pixel.
//
//     pixel p of a turn    [channels 0..15][16..31][32..47][48..63], sixteen c at c ^ (p / 2 % 4)
#pragma once

#include "epilogue.cuh"
#include "mma_sparse.cuh"

namespace fastinfer::cuda {

constexpr int kTurnPixels = 32;
constexpr int kTurnBytes = 2 * kTurnPixels * 64;  // two turns: one is stored while one is filled

struct SparseEpilogue {
  Epilogue e;
  bool is_wide;  // sixteen channels of a pixel are aligned
  // From the bits of 1.5 * 2^23 + a rounded result to what it is above qmin, and the most that may be.
  int32_t from_bits, range;
};

__device__ __forceinline__ SparseEpilogue read_sparse_epilogue(const GemmCall& c) {
  SparseEpilogue s{read_epilogue(c), false, 0, 0};
  s.from_bits = -__float2int_rn(s.e.low) - kRoundingBits;
  s.range = __float2int_rn(s.e.high - s.e.low);
  const auto places = reinterpret_cast<uintptr_t>(c.out) | reinterpret_cast<uintptr_t>(c.residual);
  s.is_wide = c.n % 16 == 0 && places % 16 == 0;
  if (reinterpret_cast<const PackedHeader*>(c.packed)->index != c.sparse) __trap();
  return s;
}

// What a lane's two channels need.
struct TwoChannels {
  int32_t bias[2];
  float multiplier[2], residual_multiplier[2];
};

// `channel` of the group, even; vectors are padded beyond n to whole panels of 32.
__device__ __forceinline__ TwoChannels load_two(const Epilogue& e, int32_t first, int channel) {
  TwoChannels v{};
  if (channel >= e.n) return v;
  const int at = first + channel;
  const int2 bias = __ldg(reinterpret_cast<const int2*>(e.bias + at));
  const float2 multiplier = __ldg(reinterpret_cast<const float2*>(e.multiplier + at));
  v.bias[0] = bias.x;
  v.bias[1] = bias.y;
  v.multiplier[0] = multiplier.x;
  v.multiplier[1] = multiplier.y;
  if (e.residual != nullptr && !e.float_output) {
    const float2 more = __ldg(reinterpret_cast<const float2*>(e.residual_multiplier + at));
    v.residual_multiplier[0] = more.x;
    v.residual_multiplier[1] = more.y;
  }
  return v;
}

// What a small result is above qmin, as in codes_of of epilogue.cuh.
__device__ __forceinline__ uint32_t code_above(const SparseEpilogue& s, float f) {
  const int32_t bits = __float_as_int(__fadd_rn(f, kRounding));
  return static_cast<uint32_t>(__viaddmin_s32_relu(bits, s.from_bits, s.range));
}

// A lane's codes of pixels 2 t and 2 t + 1 of an 8 x 8 matrix: bytes are pixel 0's two channels,
// then pixel 1's. `residual` is laid out so too.
__device__ __forceinline__ uint32_t four_codes(const SparseEpilogue& s, const TwoChannels& v,
                                               const int32_t (&acc)[4], bool has_residual,
                                               uint32_t residual) {
  uint32_t code[4];
#pragma unroll
  for (int i = 0; i < 4; i++) {  // acc: channel i / 2, pixel i % 2
    const int channel = i / 2, pixel = i % 2;
    float f = __fmul_rn(__int2float_rn(acc[i] + v.bias[channel]), v.multiplier[channel]);
    if (has_residual) {
      const float byte = float_of(residual, pixel * 2 + channel);
      f = __fadd_rn(f, __fmul_rn(byte, v.residual_multiplier[channel]));
    }
    code[pixel * 2 + channel] = code_above(s, f);
  }
  return low_bytes(code) + s.e.lowest;  // no byte carries
}

// Small bytes in whole, aligned sixteens, without a table.
template <int kPixels, int kCount>
__device__ __forceinline__ void store_turns(const SparseEpilogue& s, const int32_t (&acc)[kCount],
                                            uint32_t turn, int barrier, const TwoChannels& v,
                                            int64_t row0, int32_t column, int channel, int thread) {
  const Epilogue& e = s.e;
  const int warp = thread / 32, lane = thread % 32;
  const bool has_residual = e.residual != nullptr;
  // As it is filled: a lane's row is pixel `lane`, its 16 bytes those of the warp's channels.
  const uint32_t fill_at = turn + lane * 64 + ((warp ^ (lane >> 1 & 3)) << 4);
  // As it is stored: a thread has 16 channels of pixel thread / 4.
  const int pixel = thread / 4, part = thread % 4;
  const uint32_t store_at = turn + pixel * 64 + ((part ^ (pixel >> 1 & 3)) << 4);
  const bool is_channel = channel + part * 16 < e.n;
  int64_t row = row0 + pixel;
  int64_t at = row * e.ldc + column + part * 16;
  ptx::group_sync(barrier, 128);  // the last tile may have ended on the first half
#pragma unroll
  for (int i = 0; i < kPixels / kTurnPixels; i++) {
    if (row0 + i * kTurnPixels >= e.m) break;
    const uint32_t half = i % 2 * (kTurnBytes / 2);
    const bool is_there = is_channel && row < e.m;
    uint32_t residual[4] = {};
    if (has_residual) {
      uint4 bytes{};
      if (is_there) {
        bytes = __ldg(reinterpret_cast<const uint4*>(static_cast<const uint8_t*>(e.residual) + at));
      }
      ptx::store_shared_16(store_at + half, bytes);
      ptx::group_sync(barrier, 128);
      ptx::ldmatrix_x4_transposed(residual, fill_at + half);
    }
    uint32_t codes[4];
#pragma unroll
    for (int j = 0; j < 4; j++) {
      int32_t sums[4];
#pragma unroll
      for (int k = 0; k < 4; k++) sums[k] = acc[16 * i + 4 * j + k];
      codes[j] = four_codes(s, v, sums, has_residual, residual[j]);
    }
    ptx::stmatrix_x4_transposed(fill_at + half, codes);
    ptx::group_sync(barrier, 128);
    const uint4 bytes = ptx::load_shared_16(store_at + half);
    if (is_there) *reinterpret_cast<uint4*>(static_cast<uint8_t*>(e.out) + at) = bytes;
    row += kTurnPixels;
    at += kTurnPixels * e.ldc;
    ptx::keep_order(at);
  }
}

// One result of any kind.
__device__ __forceinline__ void store_one(const SparseEpilogue& s, int32_t acc, int32_t bias,
                                          float multiplier, float residual_multiplier,
                                          int64_t at) {
  const Epilogue& e = s.e;
  float f = __fmul_rn(__int2float_rn(acc + bias), multiplier);
  if (e.float_output) {
    if (e.residual != nullptr) f = __fadd_rn(f, __ldg(static_cast<const float*>(e.residual) + at));
    f = f < e.low ? e.low : f;  // NaN stays
    f = f > e.high ? e.high : f;
    static_cast<float*>(e.out)[at] = f;
    return;
  }
  if (e.residual != nullptr) {
    const auto code = static_cast<float>(__ldg(static_cast<const uint8_t*>(e.residual) + at));
    f = __fadd_rn(f, __fmul_rn(code, residual_multiplier));
  }
  const float bounded = fmaxf(fminf(f, e.high), e.low);  // NaN becomes `high`
  uint32_t code = code_above(s, bounded) + (e.lowest & 255u);
  if (e.table != nullptr) code = __ldg(e.table + code);
  static_cast<uint8_t*>(e.out)[at] = static_cast<uint8_t>(code);
}

}  // namespace fastinfer::cuda
