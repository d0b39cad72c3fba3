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
  float clamp_min, clamp_max;
  const uint8_t* residual_u8;
  const float* residual_f32;
  uint8_t* out_u8;
  float* out_f32;
  int64_t ldc;
  int n_valid;  // channels of this panel that exist
};

}  // namespace fastinfer
