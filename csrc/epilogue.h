// From an accumulator to a result: acc -> x multiplier -> + residual -> clamp -> requantize.
#pragma once

#include <cstdint>

namespace fastinfer {

enum class EpilogueKind : int32_t { kUint8, kFloat, kDynamic };

// Vectors point at the first channel of the panel or block being computed. `out` and the residual
// share one row stride `ldc`, in elements.
struct Epilogue {
  EpilogueKind kind;
  const int32_t* bias;  // zero-point correction folded in; zeros when dynamic
  const float* multiplier;
  const float* residual_multiplier;  // uint8 residual only
  const int32_t* weight_sum;         // dynamic only
  const float* float_bias;           // dynamic only
  const float* row_scale;            // dynamic only: one scale a row, `row_step` apart
  const int32_t* row_zero_point;
  int row_step;  // 0: all rows share the first entry
  int32_t out_zero_point, qmin, qmax;
  bool unbounded;  // uint8 results must be clamped as floats: see kFlagUnbounded
  float clamp_min, clamp_max;
  const uint8_t* residual_u8;
  const float* residual_f32;
  uint8_t* out_u8;
  float* out_f32;
  int64_t ldc;
  int n_valid;  // channels of this panel that exist

  // The same for channels `n` further on.
  Epilogue at_channel(int64_t n) const {
    Epilogue e = *this;
    e.bias += n;
    e.multiplier += n;
    if (residual_multiplier != nullptr) e.residual_multiplier += n;
    if (weight_sum != nullptr) e.weight_sum += n;
    if (float_bias != nullptr) e.float_bias += n;
    e.shift(n);
    return e;
  }

  // Moves to results `n` elements further on, of the same channels and scales.
  void shift(int64_t n) {
    if (residual_u8 != nullptr) residual_u8 += n;
    if (residual_f32 != nullptr) residual_f32 += n;
    if (out_u8 != nullptr) out_u8 += n;
    if (out_f32 != nullptr) out_f32 += n;
  }

  // Moves to the row `rows` further down.
  void advance(int64_t rows) {
    const int64_t step = rows * ldc;
    if (kind == EpilogueKind::kUint8) {
      out_u8 += step;
      if (residual_u8 != nullptr) residual_u8 += step;
      return;
    }
    out_f32 += step;
    if (residual_f32 != nullptr) residual_f32 += step;
    if (row_scale != nullptr) {
      row_scale += rows * row_step;
      row_zero_point += rows * row_step;
    }
  }
};

}  // namespace fastinfer
