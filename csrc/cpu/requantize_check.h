// The map from one uint8 tensor to another, checked once.
#pragma once

#include "../op_checks.h"
#include "kernel_table.h"

namespace fastinfer {

inline Requantize check_requantize(const char* op, double multiplier, int64_t x_zero_point,
                                   int64_t out_zero_point, int64_t qmin, int64_t qmax) {
  check_map(op, x_zero_point, out_zero_point, qmin, qmax);
  return {static_cast<float>(multiplier), static_cast<int32_t>(x_zero_point),
          static_cast<int32_t>(out_zero_point), static_cast<int32_t>(qmin),
          static_cast<int32_t>(qmax)};
}

}  // namespace fastinfer
