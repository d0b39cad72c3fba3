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
// Rows of results made between two steps of K: about as long as the step's dot products take.
constexpr int kRowsBetween = 8;

// Rows of sums to uint8. kPartial: only the first e.n_valid channels exist. kPlain: results are
// clamped to 0..255 about zero point 0, as packs do it anyway.
template <class Vec, int NV, bool kResidual, bool kPartial, bool kPlain>
__attribute__((noinline)) void store_sums_uint8(const int32_t* sums, int rows, const Epilogue& e,
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
  const auto round_vector = [&](int row, int v) __attribute__((always_inline)) {
    auto f = Vec::mulf(Vec::to_float(Vec::load(sums + row * kWidth + v * kTileLanes)),
                       multiplier[v]);
    if constexpr (kResidual) {
      const uint8_t* from = residual + row * ldc + v * kTileLanes;
      typename Vec::Float x;
      if constexpr (kPartial) {
        x = Vec::widen_some_u8(from, n_valid - v * kTileLanes);
      } else {
        x = Vec::widen_u8(from);
      }
      f = Vec::addf(f, Vec::mulf(x, residual_multiplier[v]));
    }
    return Vec::round(f);
  };
  const auto pack = [&](const typename Vec::Int (&q)[4]) __attribute__((always_inline)) {
    if constexpr (kPlain) return Vec::pack_lanes_plain(q[0], q[1], q[2], q[3]);
    return Vec::pack_lanes(q[0], q[1], q[2], q[3], clamp);
  };
  const auto store = [&](typename Vec::Int bytes, int count) __attribute__((always_inline)) {
    if constexpr (NV == 2) {
      uint8_t* const second = count > 1 ? out + ldc : nullptr;
      if constexpr (kPartial) return Vec::store_some_halves(bytes, out, second, n_valid);
      Vec::store_halves(bytes, out, second);
    } else {
      uint8_t* const to[4] = {out, out + ldc, out + 2 * ldc, out + 3 * ldc};
      if constexpr (kPartial) return Vec::store_some_rows(bytes, to, count, n_valid);
      Vec::store_rows(bytes, to, count);
    }
  };
  for (; rows >= kRowsAtOnce; rows -= kRowsAtOnce) {
    typename Vec::Int q[4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) q[j] = round_vector(j / NV, j % NV);
    store(pack(q), kRowsAtOnce);
    sums += kRowsAtOnce * kWidth;
    out += kRowsAtOnce * ldc;
    if constexpr (kResidual) residual += kRowsAtOnce * ldc;
  }
  if (rows == 0) return;
  // The first of the last rows stands in for those that do not exist, which are not stored.
  typename Vec::Int q[4];
#pragma GCC unroll 4
  for (int j = 0; j < 4; j++) q[j] = round_vector(j / NV < rows ? j / NV : 0, j % NV);
  store(pack(q), rows);
}

// Everything else: float results, and uint8 ones that are clamped as floats.
template <class Vec, int NV>
void store_sums_any(const int32_t* sums, int rows, const Epilogue& e, const ByteClamp&) {
  store_rows<Vec>(sums, rows, NV * kTileLanes, e);
}

using StoreSums = void (*)(const int32_t* sums, int rows, const Epilogue&, const ByteClamp&);

template <class Vec, int NV>
StoreSums store_sums(const Epilogue& e) {
  if (e.kind != EpilogueKind::kUint8 || e.unbounded) return store_sums_any<Vec, NV>;
  const bool residual = e.residual_u8 != nullptr;
  if (e.n_valid < NV * kTileLanes) {
    return residual ? store_sums_uint8<Vec, NV, true, true, false>
                    : store_sums_uint8<Vec, NV, false, true, false>;
  }
  if (e.out_zero_point == 0 && e.qmin == 0 && e.qmax == 255) {
    return residual ? store_sums_uint8<Vec, NV, true, false, true>
                    : store_sums_uint8<Vec, NV, false, false, true>;
  }
  return residual ? store_sums_uint8<Vec, NV, true, false, false>
                  : store_sums_uint8<Vec, NV, false, false, false>;
}

// Sums in memory, `width` a row, on their way to results: made while the next tile is multiplied, since
// the CPU's own reordering does not reach that far.
class Pending {
 public:
  Pending(StoreSums store, int width, const Epilogue& e)
      : store_(store), width_(width), clamp_(e.out_zero_point, e.qmin, e.qmax), base_(e), e_(e) {}

  // Rows from `row` and channels from `channel` on.
  void take(const int32_t* sums, int rows, int64_t row, int64_t channel) {
    sums_ = sums;
    rows_ = rows;
    if (base_.kind != EpilogueKind::kUint8) {
      e_ = base_.at_channel(channel);
      return e_.advance(row);
    }
    // Only what uint8 results take: a copy of everything costs as much as a step of the dot products.
    const int64_t at = row * base_.ldc + channel;
    e_.out_u8 = base_.out_u8 + at;
    e_.multiplier = base_.multiplier + channel;
    if (base_.residual_u8 == nullptr) return;
    e_.residual_u8 = base_.residual_u8 + at;
    e_.residual_multiplier = base_.residual_multiplier + channel;
  }
  bool is_left() const { return rows_ > 0; }
  void some() { store(rows_ < kRowsBetween ? rows_ : kRowsBetween); }
  void rest() {
    if (rows_ > 0) store(rows_);
  }

 private:
  void store(int rows) {
    store_(sums_, rows, e_, clamp_);
    rows_ -= rows;
    if (rows_ == 0) return;
    sums_ += rows * width_;
    e_.advance(rows);
  }

  const StoreSums store_;
  const int width_;
  const ByteClamp clamp_;
  const Epilogue& base_;
  const int32_t* sums_ = nullptr;
  int rows_ = 0;
  Epilogue e_;
};

template <int T, bool kStream>
inline __attribute__((always_inline)) void load_weight(const uint8_t* w, int64_t stride) {
  if constexpr (kStream) return TileRegisters::load_past_l1<T>(w, stride);
  TileRegisters::load<T>(w, stride);
}

// Steps between two stores of a register. Only the last store is of use, but on Granite Rapids one that
// comes 30 steps or more after the one before takes 220 ns longer, as much as 10 steps.
constexpr int kStepsAtOnce = 4;

// Sums of one tile times one panel into memory. kHalves: 1 or 2 registers of rows.
template <int NV, int kHalves, bool kStream>
inline __attribute__((always_inline)) void multiply_tile(const GemmTiles& t, const uint8_t* a,
                                                         const uint8_t* w, const int32_t* bias,
                                                         Pending& pending, int32_t* sums) {
  using R = TileRegisters;
  constexpr int64_t kEntry = NV * 64;  // bytes of weights for a quad
  constexpr int64_t kRowBytes = NV * 64;
  const int64_t stride = t.row_stride, second = t.second;
  const int64_t step_bytes = t.step_bytes ? t.step_bytes : t.step_quads * 4;
  const int64_t weight_bytes = t.step_quads * kEntry;
  R::load<0>(bias, 0);
  if constexpr (NV > 1) R::load<1>(bias + kTileLanes, 0);
  if constexpr (kHalves > 1) R::load<2>(bias, 0);
  if constexpr (NV > 1 && kHalves > 1) R::load<3>(bias + kTileLanes, 0);
  const int steps = t.singles / t.step_quads;
  const int32_t* const offset = t.offsets;
  const uint8_t* const panel = w;
  for (int run = 0; run < t.runs; run++) {
    const uint8_t* x = a + offset[run];
    if (t.run_weights) w = panel + t.run_weights[run];
    if (run % 8 == 7) R::store<0>(sums, kRowBytes);  // runs of few steps
    const auto step = [&]() __attribute__((always_inline)) {
      load_weight<6, kStream>(w, kEntry);
      R::load<4>(x, stride);
      R::dot_u8s8<0, 4, 6>();
      if constexpr (NV > 1) {
        load_weight<7, kStream>(w + 64, kEntry);
        R::dot_u8s8<1, 4, 7>();
      }
      if constexpr (kHalves > 1) {
        R::load<5>(x + second, stride);
        R::dot_u8s8<2, 5, 6>();
        if constexpr (NV > 1) R::dot_u8s8<3, 5, 7>();
      }
      x += step_bytes;
      w += weight_bytes;
    };
    int i = steps;
    for (; i > 0 && pending.is_left(); i--) {
      step();
      pending.some();
    }
    for (; i >= kStepsAtOnce; i -= kStepsAtOnce) {
      R::store<0>(sums, kRowBytes);  // see kStepsAtOnce
#pragma GCC unroll 8
      for (int j = 0; j < kStepsAtOnce; j++) step();
    }
    for (; i > 0; i--) step();
  }
  pending.rest();
  R::store<0>(sums, kRowBytes);
  if constexpr (NV > 1) R::store<1>(sums + kTileLanes, kRowBytes);
  if constexpr (kHalves > 1) {
    int32_t* const half = sums + (t.rows - t.half) * NV * kTileLanes;
    R::store<2>(half, kRowBytes);
    if constexpr (NV > 1) R::store<3>(half + kTileLanes, kRowBytes);
  }
}

template <int NV, int kHalves, bool kStream>
__attribute__((noinline)) void multiply_tiles(const GemmTiles& t, const Epilogue& e,
                                              StoreSums store) {
  constexpr int kWidth = NV * kTileLanes;
  alignas(64) int32_t sums[2][2 * kTileRows * kWidth];
  use_tiles(kHalves > 1 ? t.half : t.rows, t.step_quads);
  int64_t row = 0;
  Pending pending(store, kWidth, e);
  int turn = 0;
  for (int64_t line = 0; line < t.lines; line++) {
    const uint8_t* a = t.a + line * t.line_step;
    for (int64_t tile = 0; tile < t.tiles; tile++, a += t.step) {
      const auto* w = static_cast<const uint8_t*>(t.weight);
      for (int64_t panel = 0; panel < t.panels; panel++, w += t.panel_bytes) {
        multiply_tile<NV, kHalves, kStream>(t, a, w, e.bias + panel * kWidth, pending, sums[turn]);
        pending.take(sums[turn], t.rows, row, panel * kWidth);
        turn ^= 1;
      }
      row += t.rows;
    }
  }
  pending.rest();
}

// a: of each run whole steps are readable. weight: [quad][NV * 16][4].
template <class Vec, int NV>
void int8_gemm_tiles(const GemmTiles& t, const Epilogue& e) {
  static_assert(Vec::kLanes == kTileLanes);
  const StoreSums store = store_sums<Vec, NV>(e);
  if (t.streams_weight) {
    return t.half ? multiply_tiles<NV, 2, true>(t, e, store)
                  : multiply_tiles<NV, 1, true>(t, e, store);
  }
  return t.half ? multiply_tiles<NV, 2, false>(t, e, store)
                : multiply_tiles<NV, 1, false>(t, e, store);
}

// A single row has no use for a tile.
template <class Vec, int NV>
void int8_gemm_one_row(const GemmTiles& t, const Epilogue& epilogue) {
  GemmTiles line = t;
  Epilogue e = epilogue;
  for (int64_t i = 0; i < t.lines; i++, line.a += t.line_step, e.advance(static_cast<int>(t.tiles))) {
    GemmTiles panel = line;
    auto* w = static_cast<const uint8_t*>(t.weight);
    for (int64_t p = 0; p < t.panels; p++, w += t.panel_bytes) {
      panel.weight = w;
      int8_gemm_row<Vec, NV>(panel, e.at_channel(p * NV * kTileLanes));
    }
  }
}

template <class Vec, int NV>
constexpr GemmKernels tile_kernels() {
  GemmKernels kernels{2 * kTileRows, {int8_gemm_one_row<Vec, NV>}};
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
