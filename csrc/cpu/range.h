// Dynamic quantization of contiguous values: range, scale, zero point, bytes.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernel_table.h"

namespace fastinfer {

struct RangeParams {
  float scale;
  float inverse;
  int32_t zero_point;
};

// Covers [lo, hi], which holds zero: scale = (hi - lo) * (1/255), 1 when that is not positive.
inline RangeParams range_params(float lo, float hi) {
  float scale = (hi - lo) * (1.0f / 255.0f);
  if (!(scale > 0)) scale = 1.0f;
  const float f = -lo / scale;
  const float high = f < 255.0f ? f : 255.0f;  // NaN becomes 255
  const auto zero_point = static_cast<int32_t>(std::lrint(high < 0.0f ? 0.0f : high));
  return {scale, 1.0f / scale, zero_point};
}

inline RangeParams quantize_row(const KernelTable& table, const float* x, int64_t n, uint8_t* q) {
  float lo = 0.0f, hi = 0.0f;
  table.min_max(x, n, &lo, &hi);
  const RangeParams range = range_params(lo, hi);
  table.quantize(x, q, n, range.inverse, range.zero_point);
  return range;
}

// The same for n values as one range, on all threads.
RangeParams quantize_image(const KernelTable& table, const float* x, int64_t n, uint8_t* q);

}  // namespace fastinfer
