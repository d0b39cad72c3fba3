// From the accumulators of a fragment to results: + bias -> x multiplier -> + residual -> clamp ->
// round -> table. Every step rounds as the reference does; nothing is contracted.
//
// Weights lie so that the eight values of a lane in four neighbouring 8-column blocks are eight
// neighbouring channels: they leave as 8 bytes, or 32 of float.
#pragma once

#include "../packed.h"
#include "codes.cuh"
#include "gemm.h"
#include "mma.cuh"

namespace fastinfer::cuda {

// Channels that a lane holds of 32 neighbouring columns.
constexpr int kLaneChannels = 8;

// Adding 1.5 * 2^23, an even number, to a float within +-2^22 rounds it half to even: the integer is in
// the low bits of the sum's, above those of 1.5 * 2^23.
constexpr float kRounding = 12582912.0f;
constexpr int32_t kRoundingBits = 0x4B400000;

struct Epilogue {
  const int32_t* bias;  // of the first group
  const float* multiplier;
  const float* residual_multiplier;
  const uint8_t* table;
  const void* residual;
  void* out;
  int64_t m, ldc;
  int32_t n;  // channels of a group
  uint32_t lowest;  // qmin in each byte
  float low, high;  // clamp; of uint8 without the zero point
  bool float_output;
  bool is_small;  // kFlagSmall
  bool is_wide;  // eight channels of a row are aligned
  // Of a dynamic weight, else null. Then `bias` are the sums of the weights, and
  // `residual_multiplier` is the bias.
  const float* row_scale;
  const int32_t* row_zero_point;
  uint32_t rows_per_range;
  // Where a group's channels start, in a row of results and in the vectors.
  int32_t first_channel, first_value;

  __device__ __forceinline__ void set_group(int32_t group, int32_t n_padded) {
    first_channel = group * n;
    first_value = group * n_padded;
  }
};

// Numbers come from the buffer itself, never from what the host remembers of it. A buffer that is
// not what the host took it for stops the kernel.
__device__ __forceinline__ Epilogue read_epilogue(const GemmCall& c) {
  const auto& h = *reinterpret_cast<const PackedHeader*>(c.packed);
  Epilogue e;
  e.bias = reinterpret_cast<const int32_t*>(c.packed + h.bias);
  e.multiplier = reinterpret_cast<const float*>(c.packed + h.multiplier);
  e.residual_multiplier = reinterpret_cast<const float*>(c.packed + h.residual_multiplier);
  e.row_scale = nullptr;
  e.table = h.table != 0 ? c.packed + h.table : nullptr;
  e.residual = c.residual;
  e.out = c.out;
  e.m = c.m;
  e.n = c.n;
  e.ldc = int64_t{c.n} * c.groups;
  e.float_output = (h.flags & kFlagFloatOutput) != 0;
  e.is_small = (h.flags & kFlagSmall) != 0;
  e.lowest = static_cast<uint32_t>(h.qmin) * 0x01010101u;
  const auto low = static_cast<float>(h.qmin - h.out_zero_point);
  const auto high = static_cast<float>(h.qmax - h.out_zero_point);
  e.low = e.float_output ? h.clamp_min : low;
  e.high = e.float_output ? h.clamp_max : high;
  const auto places = reinterpret_cast<uintptr_t>(c.out) | reinterpret_cast<uintptr_t>(c.residual);
  e.is_wide = c.n % kLaneChannels == 0 && places % (e.float_output ? 16 : 8) == 0;
  e.set_group(0, 0);
  // Without short cuts: all fields are loaded at once, not one after the other.
  const bool has_residual = (h.flags & kFlagResidual) != 0;
  const bool is_other = (h.layout != kLayoutCuda) | (h.n != c.n * c.groups) | (h.run != c.run) |
                        (h.weight != kPackedHeaderBytes) |
                        (has_residual != (c.residual != nullptr)) |
                        ((c.row_scale != nullptr) != ((h.flags & kFlagDynamic) != 0));
  if (is_other) __trap();
  return e;
}

// Of a dynamic weight: what its epilogue reads instead. Its float bias and its weights' sums lie
// behind the multipliers, found without the header: on sm_80 two more offsets cost int8_gemm_mma of
// windows registers that it does not have.
__device__ __forceinline__ void take_ranges(Epilogue& e, const GemmCall& c) {
  if (c.row_scale == nullptr) return;
  const int64_t channels = int64_t{c.n_padded} * c.groups;
  e.residual_multiplier = e.multiplier + channels;
  e.bias = reinterpret_cast<const int32_t*>(e.multiplier + 2 * channels);
  e.row_scale = c.row_scale;
  e.row_zero_point = c.row_zero_point;
  e.rows_per_range = c.rows_per_range;
}

// What eight neighbouring channels need, loaded once for all rows of a lane, by both functions.
struct ChannelValues {
  int32_t bias[kLaneChannels];
  float multiplier[kLaneChannels];
  float residual_multiplier[kLaneChannels];
};

template <class T>
__device__ __forceinline__ void load8(T (&to)[kLaneChannels], const T* from) {
  static_assert(sizeof(T) == 4);
  const auto* vectors = reinterpret_cast<const uint4*>(from);
  const uint4 a = __ldg(vectors), b = __ldg(vectors + 1);
  const uint32_t words[kLaneChannels] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
#pragma unroll
  for (int i = 0; i < kLaneChannels; i++) {
    if constexpr (__is_same(T, float)) {
      to[i] = __uint_as_float(words[i]);
    } else {
      to[i] = static_cast<int32_t>(words[i]);
    }
  }
}

// `column` of the group, a multiple of 8. False where no such channel exists.
__device__ __forceinline__ bool load_channels(const Epilogue& e, int column, ChannelValues& v) {
  if (column >= e.n) return false;
  load8(v.bias, e.bias + e.first_value + column);
  load8(v.multiplier, e.multiplier + e.first_value + column);
  return true;
}

// What a residual needs besides, or a dynamic weight.
__device__ __forceinline__ void load_residual_channels(const Epilogue& e, int column,
                                                       ChannelValues& v) {
  if ((e.residual != nullptr && !e.float_output) || e.row_scale != nullptr) {
    load8(v.residual_multiplier, e.residual_multiplier + e.first_value + column);
  }
}

// Brings to L2 what the epilogue of kRows rows and kColumns columns reads; each of kThreads threads
// a part. Loaded first in the epilogue each of them takes as long as memory does, one after the
// other.
template <int kRows, int kColumns, int kThreads>
__device__ __forceinline__ void prefetch_epilogue(const Epilogue& e, int64_t row, int column,
                                                  int thread) {
  constexpr int kLine = 128;
  if (thread < kColumns / 32 && column + thread * 32 < e.n) {
    const int at = e.first_value + column + thread * 32;
    ptx::prefetch_line(e.bias + at);
    ptx::prefetch_line(e.multiplier + at);
    if (e.residual != nullptr && !e.float_output) ptx::prefetch_line(e.residual_multiplier + at);
  }
  __syncwarp();  // what comes next is for whole warps
  if (e.residual == nullptr) return;
  const int size = e.float_output ? 4 : 1, lines = (kColumns * size + kLine - 1) / kLine;
  for (int i = thread; i < kRows * lines; i += kThreads) {
    const int64_t r = row + i / lines;
    const int c = column + i % lines * (kLine / size);
    if (r >= e.m || c >= e.n) continue;
    const int64_t at = r * e.ldc + e.first_channel + c;
    ptx::prefetch_line(static_cast<const uint8_t*>(e.residual) + at * size);
  }
  __syncwarp();
}

__device__ __forceinline__ void scale(const ChannelValues& v, const int32_t (&acc)[kLaneChannels],
                                      float (&f)[kLaneChannels]) {
#pragma unroll
  for (int i = 0; i < kLaneChannels; i++) {
    f[i] = __fmul_rn(__int2float_rn(acc[i] + v.bias[i]), v.multiplier[i]);
  }
}

// Of rows with a range of their own: less what the zero point adds, and by the range's scale.
__device__ __forceinline__ void scale_row(const Epilogue& e, const ChannelValues& v, int64_t row,
                                          const int32_t (&acc)[kLaneChannels],
                                          float (&f)[kLaneChannels]) {
  const uint32_t range = static_cast<uint32_t>(row) / e.rows_per_range;
  const float row_scale = __ldg(e.row_scale + range);
  const int32_t zero_point = __ldg(e.row_zero_point + range);
#pragma unroll
  for (int i = 0; i < kLaneChannels; i++) {
    const int32_t sum = acc[i] - zero_point * v.bias[i];
    const float product = __fmul_rn(__int2float_rn(sum), v.multiplier[i]);
    f[i] = __fadd_rn(__fmul_rn(product, row_scale), v.residual_multiplier[i]);
  }
}

__device__ __forceinline__ void add_bytes(const ChannelValues& v, uint2 residual,
                                          float (&f)[kLaneChannels]) {
#pragma unroll
  for (int i = 0; i < kLaneChannels; i++) {
    const float code = float_of(i < 4 ? residual.x : residual.y, i % 4);
    f[i] = __fadd_rn(f[i], __fmul_rn(code, v.residual_multiplier[i]));
  }
}

// Rounded, moved by the zero point, clamped. Integers are clamped by the instruction that moves them,
// where two of floats, at half the rate, would come before; what is not small needs these too.
template <bool kAlwaysSmall = false>
__device__ __forceinline__ uint2 codes_of(const Epilogue& e, float (&f)[kLaneChannels]) {
  if (!kAlwaysSmall && !e.is_small) {
#pragma unroll
    for (int i = 0; i < kLaneChannels; i++) {
      f[i] = fmaxf(fminf(f[i], e.high), e.low);  // NaN becomes `high`
    }
  }
  // From the bits of 1.5 * 2^23 + a rounded result to what it is above qmin, and the most that may be.
  const int32_t from_bits = -__float2int_rn(e.low) - kRoundingBits;
  const int32_t range = __float2int_rn(e.high - e.low);
  uint32_t above[kLaneChannels];
#pragma unroll
  for (int i = 0; i < kLaneChannels; i++) {
    const int32_t bits = __float_as_int(__fadd_rn(f[i], kRounding));
    above[i] = static_cast<uint32_t>(__viaddmin_s32_relu(bits, from_bits, range));
  }
  return {low_bytes(above) + e.lowest, low_bytes(above + 4) + e.lowest};  // no byte carries
}

// The table's byte for each of eight codes.
__device__ __forceinline__ uint2 look_up(const Epilogue& e, uint2 q) {
  uint32_t found[kLaneChannels];
#pragma unroll
  for (int i = 0; i < kLaneChannels; i++) {
    found[i] = __ldg(e.table + byte_of(i < 4 ? q.x : q.y, i % 4));
  }
  return {low_bytes(found), low_bytes(found + 4)};
}

__device__ __forceinline__ void store_bytes(const Epilogue& e, const ChannelValues& v, int64_t at,
                                            int valid, float (&f)[kLaneChannels]) {
  const bool is_whole = e.is_wide && valid >= kLaneChannels;
  if (e.residual != nullptr) {
    const auto* from = static_cast<const uint8_t*>(e.residual) + at;
    uint2 r{0, 0};
    if (is_whole) {
      r = __ldg(reinterpret_cast<const uint2*>(from));
    } else {
#pragma unroll
      for (int i = 0; i < kLaneChannels; i++) {
        const uint32_t byte = i < valid ? static_cast<uint32_t>(from[i]) << (8 * (i % 4)) : 0u;
        (i < 4 ? r.x : r.y) |= byte;
      }
    }
    add_bytes(v, r, f);
  }
  uint2 q = codes_of(e, f);
  if (e.table != nullptr) q = look_up(e, q);
  auto* to = static_cast<uint8_t*>(e.out) + at;
  if (is_whole) {
    *reinterpret_cast<uint2*>(to) = q;
    return;
  }
#pragma unroll
  for (int i = 0; i < kLaneChannels; i++) {
    if (i < valid) to[i] = static_cast<uint8_t>(byte_of(i < 4 ? q.x : q.y, i % 4));
  }
}

__device__ __forceinline__ void store_floats(const Epilogue& e, int64_t at, int valid,
                                             float (&f)[kLaneChannels]) {
  const bool is_whole = e.is_wide && valid >= kLaneChannels;
  const auto* from = static_cast<const float*>(e.residual) + at;
  auto* to = static_cast<float*>(e.out) + at;
#pragma unroll
  for (int i = 0; i < kLaneChannels; i++) {
    if (e.residual != nullptr && i < valid) f[i] = __fadd_rn(f[i], __ldg(from + i));
    f[i] = f[i] < e.low ? e.low : f[i];  // NaN stays
    f[i] = f[i] > e.high ? e.high : f[i];
  }
  if (is_whole) {
    *reinterpret_cast<float4*>(to) = {f[0], f[1], f[2], f[3]};
    *reinterpret_cast<float4*>(to + 4) = {f[4], f[5], f[6], f[7]};
    return;
  }
#pragma unroll
  for (int i = 0; i < kLaneChannels; i++) {
    if (i < valid) to[i] = f[i];
  }
}

// The eight channels from `column` on of one row. `v` is of that column.
__device__ __forceinline__ void store_channels(const Epilogue& e, const ChannelValues& v,
                                               int64_t row, int column,
                                               const int32_t (&acc)[kLaneChannels]) {
  if (row >= e.m) return;
  const int64_t at = row * e.ldc + e.first_channel + column;
  const int valid = e.n - column;
  float f[kLaneChannels];
  if (e.row_scale != nullptr) {
    scale_row(e, v, row, acc, f);
  } else {
    scale(v, acc, f);
  }
  if (e.float_output) {
    store_floats(e, at, valid, f);
  } else {
    store_bytes(e, v, at, valid, f);
  }
}

// As store_channels, of bytes without a residual, where eight channels are whole and aligned.
__device__ __forceinline__ void store_whole_bytes(const Epilogue& e, const ChannelValues& v,
                                                  int64_t row, int column,
                                                  const int32_t (&acc)[kLaneChannels]) {
  float f[kLaneChannels];
  scale(v, acc, f);
  uint2 q = codes_of(e, f);
  if (e.table != nullptr) q = look_up(e, q);
  *reinterpret_cast<uint2*>(static_cast<uint8_t*>(e.out) + row * e.ldc + column) = q;
}

// What a panel of 32 columns reads for two rows.
struct PanelValues {
  ChannelValues channels;
  uint2 residual[2];
};

// Rows `row` and row + 8 of a lane's accumulators, from `column`, the first of a tile's at `first`,
// on: small bytes in whole eights, without a table. Written out, as registers cannot be indexed.
// What a panel reads is loaded while the one before is computed: two warps share an issue slot here,
// too few to hide it.
template <int kCount>
__device__ __forceinline__ void store_panels(const Epilogue& e, const int32_t (&acc)[kCount],
                                             int64_t row, int first, int column) {
  constexpr int kPanels = kCount / 16;
  constexpr int kAhead = kCount <= 64 ? 1 : 0;  // panels; where there are registers for it
  const bool is_row[2] = {row < e.m, row + 8 < e.m};
  const bool has_residual = e.residual != nullptr;
  int64_t at = row * e.ldc + e.first_channel + column;
  const int64_t next_row = 8 * e.ldc;
  int value = e.first_value + column;
  // Pointers that stay where they are: steps of a panel are part of the instructions.
  const int32_t* bias = e.bias + value;
  const float* multiplier = e.multiplier + value;
  // Vectors are padded to whole panels, so that a lane beyond n reads, and stores nothing.
  const auto load = [&](int j, PanelValues& v) {
    load8(v.channels.bias, (kAhead > 0 ? bias : e.bias + value) + 32 * j);
    load8(v.channels.multiplier, (kAhead > 0 ? multiplier : e.multiplier + value) + 32 * j);
    if (!has_residual) return;
    load8(v.channels.residual_multiplier, e.residual_multiplier + value + 32 * j);
    const uint8_t* from = static_cast<const uint8_t*>(e.residual) + at + 32 * j;
#pragma unroll
    for (int half = 0; half < 2; half++) {
      if (is_row[half] && column + 32 * j < e.n) {
        v.residual[half] =
            __ldg(reinterpret_cast<const uint2*>(from + half * next_row));
      }
    }
  };
  PanelValues ring[1 + kAhead];
  if (kAhead > 0) load(0, ring[0]);
#pragma unroll
  for (int j = 0; j < kPanels; j++) {
    if (first + 32 * j >= e.n) break;
    if constexpr (kAhead > 0) {
      ptx::keep_order(bias);
      ptx::keep_order(multiplier);
    } else {  // one register of offsets where there are few
      ptx::keep_order(value);
      ptx::keep_order(at);
    }
    if (j + kAhead < kPanels && first + 32 * (j + kAhead) < e.n) {
      load(j + kAhead, ring[(j + kAhead) % (1 + kAhead)]);
    }
    const PanelValues& values = ring[j % (1 + kAhead)];
#pragma unroll
    for (int half = 0; half < 2; half++) {
      int32_t sums[kLaneChannels];
#pragma unroll
      for (int v = 0; v < kLaneChannels; v++) sums[v] = acc[16 * j + v / 2 * 4 + half * 2 + v % 2];
      float f[kLaneChannels];
      scale(values.channels, sums, f);
      if (has_residual) add_bytes(values.channels, values.residual[half], f);
      const uint2 codes = codes_of<true>(e, f);
      if (is_row[half] && column + 32 * j < e.n) {
        auto* to = static_cast<uint8_t*>(e.out) + at + 32 * j;
        *reinterpret_cast<uint2*>(to + half * next_row) = codes;
      }
    }
  }
}

}  // namespace fastinfer::cuda
