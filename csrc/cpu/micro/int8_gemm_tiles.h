// int8 GEMM tile in AMX registers: up to 32 rows x 16 or 32 channels, a step of K at a time.
//
// Registers 0 to 3 hold sums, [half of the rows][16 channels]; 4 and 5 the halves of A, 6 and 7 the
// weights. A step costs as many cycles as a half has rows, whatever it has of K.
#pragma once

#include "int8_gemm_dot.h"
#include "store_tile.h"
#include "tile_registers.h"
#include "tiles.h"

namespace fastinfer {
namespace {

// What this thread's registers are configured for; 0 rows: nothing.
struct TileShape {
  int rows = 0, quads = 0;
};
inline TileShape& current_tile_shape() {
  static thread_local TileShape shape;
  return shape;
}

// To configure costs some 45 ns, and zeroes all registers.
inline void use_tiles(int rows, int quads) {
  TileShape& now = current_tile_shape();
  if (now.rows == rows && now.quads == quads) return;
  TileConfig config;
  for (int sums = 0; sums < 4; sums++) {
    config.rows[sums] = static_cast<uint8_t>(rows);
    config.row_bytes[sums] = 64;
  }
  for (int i = 0; i < 2; i++) {
    config.rows[4 + i] = static_cast<uint8_t>(rows);
    config.row_bytes[4 + i] = static_cast<uint16_t>(quads * 4);
    config.rows[6 + i] = static_cast<uint8_t>(quads);
    config.row_bytes[6 + i] = 64;
  }
  TileRegisters::configure(config);
  now = {rows, quads};
}

inline void release_tiles() {
  if (current_tile_shape().rows == 0) return;
  TileRegisters::release();
  current_tile_shape() = {};
}

constexpr int kTileRows = 16, kTileLanes = 16;

// The sums of a tile in memory, kWidth a row, to results.
template <class Vec, int NV, bool kResidual, bool kPartial>
inline __attribute__((always_inline)) void store_sums_uint8(const int32_t* sums, int rows,
                                                            const Epilogue& e,
                                                            const ByteClamp& clamp) {
  constexpr int kWidth = NV * kTileLanes, kRowsAtOnce = 4 / NV;
  uint8_t* out = e.out_u8;
  const uint8_t* residual = e.residual_u8;
  const int64_t ldc = e.ldc;
  const int n_valid = kPartial ? e.n_valid : kWidth;
  typename Vec::Float multiplier[NV], residual_multiplier[NV];
#pragma GCC unroll 2
  for (int v = 0; v < NV; v++) {
    multiplier[v] = Vec::loadf(e.multiplier + v * kTileLanes);
    if constexpr (kResidual) {
      residual_multiplier[v] = Vec::loadf(e.residual_multiplier + v * kTileLanes);
    }
  }
  // The last rows may be fewer: the first of them then stands in for others, which are not stored.
  for (; rows > 0; rows -= kRowsAtOnce) {
    typename Vec::Int q[4];
    uint8_t* to[4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
      const int row = j / NV < rows ? j / NV : 0, v = j % NV;
      const int64_t place = row * ldc + v * kTileLanes;
      auto f = Vec::mulf(Vec::to_float(Vec::load(sums + row * kWidth + v * kTileLanes)),
                         multiplier[v]);
      if constexpr (kResidual) {
        typename Vec::Float x;
        if constexpr (kPartial) {
          x = Vec::widen_some_u8(residual + place, n_valid - v * kTileLanes);
        } else {
          x = Vec::widen_u8(residual + place);
        }
        f = Vec::addf(f, Vec::mulf(x, residual_multiplier[v]));
      }
      q[j] = Vec::round(f);
      to[j] = out + place;
    }
    const auto bytes = Vec::pack_lanes(q[0], q[1], q[2], q[3], clamp);
    if constexpr (kPartial && NV == 2) {
      Vec::store_some_halves(bytes, to[0], rows > 1 ? to[2] : nullptr, n_valid);
    } else if constexpr (kPartial) {
      Vec::store_some_rows(bytes, to, rows, n_valid);
    } else if constexpr (NV == 2) {
      Vec::store_halves(bytes, to[0], rows > 1 ? to[2] : nullptr);
    } else {
      Vec::store_rows(bytes, to, rows);
    }
    sums += kRowsAtOnce * kWidth;
    out += kRowsAtOnce * ldc;
    if constexpr (kResidual) residual += kRowsAtOnce * ldc;
  }
}

template <class Vec, int NV>
inline __attribute__((always_inline)) void store_sums(const int32_t* sums, int rows,
                                                      const Epilogue& e, const ByteClamp& clamp) {
  if (e.kind == EpilogueKind::kUint8 && !e.unbounded) {
    const bool residual = e.residual_u8 != nullptr;
    if (e.n_valid == NV * kTileLanes) {
      if (!residual) return store_sums_uint8<Vec, NV, false, false>(sums, rows, e, clamp);
      return store_sums_uint8<Vec, NV, true, false>(sums, rows, e, clamp);
    }
    if (!residual) return store_sums_uint8<Vec, NV, false, true>(sums, rows, e, clamp);
    return store_sums_uint8<Vec, NV, true, true>(sums, rows, e, clamp);
  }
  store_rows<Vec>(sums, rows, NV * kTileLanes, e);
}

// Sums of one tile into memory. HALVES: 1 or 2 registers of rows.
template <int NV, int HALVES>
inline __attribute__((always_inline)) void multiply_tiles(const GemmTiles& t, const uint8_t* a,
                                                          int steps, int64_t step_bytes,
                                                          int first_row, const int32_t* bias,
                                                          int32_t* sums) {
  using R = TileRegisters;
  constexpr int64_t kEntry = NV * 64;  // bytes of weights for a quad
  const int64_t stride = t.row_stride, second = t.second;
  R::load<0>(bias, 0);
  if constexpr (NV > 1) R::load<1>(bias + kTileLanes, 0);
  if constexpr (HALVES > 1) R::load<2>(bias, 0);
  if constexpr (NV > 1 && HALVES > 1) R::load<3>(bias + kTileLanes, 0);
  const auto* w = static_cast<const uint8_t*>(t.weight);
  const int64_t weight_bytes = step_bytes / 4 * kEntry;
  const int32_t* offset = t.offsets;
  for (int run = t.runs; run > 0; run--) {
    const uint8_t* x = a + *offset++;
    for (int i = steps; i > 0; i--) {
      R::load<6>(w, kEntry);
      R::load<4>(x, stride);
      R::dot_u8s8<0, 4, 6>();
      if constexpr (NV > 1) {
        R::load<7>(w + 64, kEntry);
        R::dot_u8s8<1, 4, 7>();
      }
      if constexpr (HALVES > 1) {
        R::load<5>(x + second, stride);
        R::dot_u8s8<2, 5, 6>();
        if constexpr (NV > 1) R::dot_u8s8<3, 5, 7>();
      }
      x += step_bytes;
      w += weight_bytes;
    }
  }
  constexpr int64_t kRowBytes = NV * 64;
  R::store<0>(sums, kRowBytes);
  if constexpr (NV > 1) R::store<1>(sums + kTileLanes, kRowBytes);
  if constexpr (HALVES > 1) {
    int32_t* const half = sums + first_row * NV * kTileLanes;
    R::store<2>(half, kRowBytes);
    if constexpr (NV > 1) R::store<3>(half + kTileLanes, kRowBytes);
  }
}

// a: of each run whole steps are readable. weight: [quad][NV * 16][4].
template <class Vec, int NV>
__attribute__((noinline)) void int8_gemm_tiles(const GemmTiles& t, const Epilogue& epilogue) {
  static_assert(Vec::kLanes == kTileLanes);
  alignas(64) int32_t sums[2 * kTileRows * NV * kTileLanes];
  const int steps = t.singles / t.step_quads;
  const int64_t step_bytes = t.step_quads * 4;
  use_tiles(t.half ? t.half : t.rows, t.step_quads);
  Epilogue e = epilogue;
  const ByteClamp clamp(e.out_zero_point, e.qmin, e.qmax);
  const uint8_t* a = t.a;
  for (int64_t i = t.tiles; i > 0; i--) {
    if (t.half) {
      multiply_tiles<NV, 2>(t, a, steps, step_bytes, t.rows - t.half, e.bias, sums);
    } else {
      multiply_tiles<NV, 1>(t, a, steps, step_bytes, 0, e.bias, sums);
    }
    store_sums<Vec, NV>(sums, t.rows, e, clamp);
    a += t.step;
    e.advance(t.rows);
  }
}

// A single row has no use for a tile.
template <class Vec, int NV>
constexpr GemmKernels tile_kernels() {
  GemmKernels kernels{2 * kTileRows, {int8_gemm_dot<Vec, 1, NV>}};
  for (int rows = 2; rows <= 2 * kTileRows; rows++) {
    kernels.kernel[rows - 1] = int8_gemm_tiles<Vec, NV>;
  }
  return kernels;
}

// Dot products in registers, four sums.
inline int64_t peak_tiles(int64_t rounds) {
  using R = TileRegisters;
  use_tiles(kTileRows, kTileQuads);
  const int64_t count = rounds / 16;
  for (int64_t r = 0; r < count; r++) {
    R::dot_u8s8<0, 4, 6>();
    R::dot_u8s8<1, 4, 7>();
    R::dot_u8s8<2, 5, 6>();
    R::dot_u8s8<3, 5, 7>();
  }
  release_tiles();
  return count * 4 * kTileRows * kTileLanes * kTileQuads * 4;
}

}  // namespace
}  // namespace fastinfer
