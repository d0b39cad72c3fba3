// The epilogue of a GEMM tile: acc[mr][nv] vectors of int32 -> rows of uint8 or float32.
//
// Whole uint8 panels, and with masks those with missing channels, leave straight from registers.
// Everything else (float results, dynamic scales) goes through memory and one shared function, which
// keeps the register pressure of those paths away from the main loop.
#pragma once

#include <cstring>

#include "../../epilogue.h"
#include "byte_clamp.h"

namespace fastinfer {
namespace {

// One float32 multiply, then the residual. The multipliers point at the vector's first channel.
template <class Vec>
inline __attribute__((always_inline)) typename Vec::Float scale_lanes(
    typename Vec::Int acc, const float* multiplier, const uint8_t* residual,
    const float* residual_multiplier) {
  auto f = Vec::mulf(Vec::to_float(acc), Vec::loadf(multiplier));
  if (residual != nullptr) {
    f = Vec::addf(f, Vec::mulf(Vec::widen_u8(residual), Vec::loadf(residual_multiplier)));
  }
  return f;
}

// acc: mr rows of `width` int32 in memory. The upper clamp comes before rounding: it keeps an
// unbounded result within int32.
template <class Vec>
inline void store_rows_uint8(const int32_t* acc, int mr, int width, const Epilogue& e) {
  const ByteClamp clamp(e.out_zero_point, e.qmin, e.qmax);
  const auto high = Vec::setf(static_cast<float>(e.qmax - e.out_zero_point));
  for (int r = 0; r < mr; r++) {
    for (int at = 0; at < e.n_valid; at += Vec::kLanes) {
      const size_t left = static_cast<size_t>(e.n_valid - at);
      const size_t count = left < Vec::kLanes ? left : Vec::kLanes;
      uint8_t residual[Vec::kLanes] = {};
      const bool has_residual = e.residual_u8 != nullptr;
      if (has_residual) std::memcpy(residual, e.residual_u8 + r * e.ldc + at, count);
      const auto f =
          scale_lanes<Vec>(Vec::load(acc + r * width + at), e.multiplier + at,
                           has_residual ? residual : nullptr, e.residual_multiplier + at);
      const auto q = Vec::round(Vec::minf(f, high));
      uint8_t bytes[Vec::kBytes];
      Vec::store(bytes, Vec::lanes_to_rows(Vec::pack_lanes(q, q, q, q, clamp)));
      std::memcpy(e.out_u8 + r * e.ldc + at, bytes, count);
    }
  }
}

template <class Vec>
inline void store_rows_float(const int32_t* acc, int mr, int width, const Epilogue& e) {
  const bool dynamic = e.kind == EpilogueKind::kDynamic;
  const auto low = Vec::setf(e.clamp_min), high = Vec::setf(e.clamp_max);
  for (int r = 0; r < mr; r++) {
    for (int at = 0; at < e.n_valid; at += Vec::kLanes) {
      const int left = e.n_valid - at;
      const size_t bytes = static_cast<size_t>(left < Vec::kLanes ? left : Vec::kLanes) * 4;
      auto sum = Vec::load(acc + r * width + at);
      float part[Vec::kLanes] = {};
      if (dynamic) {
        const auto zero_point = Vec::set32(e.row_zero_point[r * e.row_step]);
        sum = Vec::sub32(sum, Vec::mul32(zero_point, Vec::load(e.weight_sum + at)));
      }
      auto f = Vec::mulf(Vec::to_float(sum), Vec::loadf(e.multiplier + at));
      if (dynamic) {
        f = Vec::mulf(f, Vec::setf(e.row_scale[r * e.row_step]));
        f = Vec::addf(f, Vec::loadf(e.float_bias + at));
      } else if (e.residual_f32 != nullptr) {
        std::memcpy(part, e.residual_f32 + r * e.ldc + at, bytes);
        f = Vec::addf(f, Vec::loadf(part));
      }
      f = Vec::minf(high, Vec::maxf(low, f));
      float* to = e.out_f32 + r * e.ldc + at;
      if (left >= Vec::kLanes) {
        Vec::storef(to, f);
      } else {
        Vec::storef(part, f);
        std::memcpy(to, part, bytes);
      }
    }
  }
}

template <class Vec>
__attribute__((noinline)) void store_rows(const int32_t* acc, int mr, int width,
                                          const Epilogue& e) {
  if (e.kind == EpilogueKind::kUint8) return store_rows_uint8<Vec>(acc, mr, width, e);
  store_rows_float<Vec>(acc, mr, width, e);
}

// Where the uint8 results of a tile go. Copies of an Epilogue's: a store of bytes may change anything in
// memory, in the compiler's eyes.
struct PanelPlaces {
  uint8_t* out;
  const uint8_t* residual;
  const float* multiplier;
  const float* residual_multiplier;
  int64_t ldc;
  int n_valid;

  explicit PanelPlaces(const Epilogue& e)
      : out(e.out_u8),
        residual(e.residual_u8),
        multiplier(e.multiplier),
        residual_multiplier(e.residual_multiplier),
        ldc(e.ldc),
        n_valid(e.n_valid) {}

  void advance(int64_t rows) {
    out += rows * ldc;
    if (residual != nullptr) residual += rows * ldc;
  }
};

// The results of vectors `i` to i + 3 of a tile, counted row by row. kPartial: only the first n_valid
// channels exist; for vectors with masks.
template <class Vec, int MR, int NV, bool kResidual, bool kPartial, bool kPlain>
inline __attribute__((always_inline)) void store_four(const typename Vec::Int (&acc)[MR][NV], int i,
                                                      const PanelPlaces& p,
                                                      const ByteClamp& clamp) {
  constexpr int kCount = MR * NV;
  const int n_valid = kPartial ? p.n_valid : NV * Vec::kLanes;
  typename Vec::Int q[4];
  uint8_t* to[4];
#pragma GCC unroll 4
  for (int j = 0; j < 4; j++) {
    // Rows past the tile repeat its last vector; they are not stored.
    const int at = i + j < kCount ? i + j : kCount - 1;
    const int r = at / NV, v = at % NV;
    const int64_t place = r * p.ldc + v * Vec::kLanes;
    auto f = Vec::mulf(Vec::to_float(acc[r][v]), Vec::loadf(p.multiplier + v * Vec::kLanes));
    if constexpr (kResidual) {
      typename Vec::Float x;
      if constexpr (kPartial) {
        x = Vec::widen_some_u8(p.residual + place, n_valid - v * Vec::kLanes);
      } else {
        x = Vec::widen_u8(p.residual + place);
      }
      f = Vec::addf(f, Vec::mulf(x, Vec::loadf(p.residual_multiplier + v * Vec::kLanes)));
    }
    q[j] = Vec::round(f);
    to[j] = p.out + place;
  }
  const int count = kCount - i < 4 ? kCount - i : 4;
  typename Vec::Int bytes;
  if constexpr (kPlain) {
    bytes = Vec::pack_lanes_plain(q[0], q[1], q[2], q[3]);
  } else {
    bytes = Vec::pack_lanes(q[0], q[1], q[2], q[3], clamp);
  }
  if constexpr (kPartial && NV == 2) {
    Vec::store_some_halves(bytes, to[0], count > 2 ? to[2] : nullptr, n_valid);
  } else if constexpr (kPartial) {
    Vec::store_some_rows(bytes, to, count, n_valid);
  } else if constexpr (NV == 2) {
    Vec::store_halves(bytes, to[0], count > 2 ? to[2] : nullptr);
  } else {
    Vec::store_rows(bytes, to, count);
  }
}

template <class Vec, int MR, int NV, bool kResidual, bool kPartial, bool kPlain>
inline __attribute__((always_inline)) void store_panel_uint8(typename Vec::Int (&acc)[MR][NV],
                                                             const Epilogue& e,
                                                             const ByteClamp& clamp) {
  const PanelPlaces places(e);
#pragma GCC unroll 16
  for (int i = 0; i < MR * NV; i += 4) {
    store_four<Vec, MR, NV, kResidual, kPartial, kPlain>(acc, i, places, clamp);
  }
}

template <class Vec, int MR, int NV>
inline __attribute__((always_inline)) void store_tile(typename Vec::Int (&acc)[MR][NV],
                                                      const Epilogue& e,
                                                      const ByteClamp& clamp) {
  constexpr int kWidth = NV * Vec::kLanes;
  if (e.kind == EpilogueKind::kUint8 && !e.unbounded) {
    const bool residual = e.residual_u8 != nullptr;
    if (e.n_valid == kWidth) {
      if constexpr (Vec::kHasMasks) {
        if (clamp.is_plain) {
          if (!residual) return store_panel_uint8<Vec, MR, NV, false, false, true>(acc, e, clamp);
          return store_panel_uint8<Vec, MR, NV, true, false, true>(acc, e, clamp);
        }
      }
      if (!residual) return store_panel_uint8<Vec, MR, NV, false, false, false>(acc, e, clamp);
      return store_panel_uint8<Vec, MR, NV, true, false, false>(acc, e, clamp);
    }
    if constexpr (Vec::kHasMasks) {
      if (!residual) return store_panel_uint8<Vec, MR, NV, false, true, false>(acc, e, clamp);
      return store_panel_uint8<Vec, MR, NV, true, true, false>(acc, e, clamp);
    }
  }
  alignas(64) int32_t rows[MR * kWidth];
#pragma GCC unroll 16
  for (int r = 0; r < MR; r++) {
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) Vec::store(rows + r * kWidth + v * Vec::kLanes, acc[r][v]);
  }
  store_rows<Vec>(rows, MR, kWidth, e);
}

}  // namespace
}  // namespace fastinfer
