// How float results become codes. No torch, no CUDA types.
#pragma once

#include <cstdint>

namespace fastinfer::cuda {

// Bounds before rounding, less the zero point, and the zero point in each byte of a word.
struct Rounding {
  float low, high;
  uint32_t zero_points;
};

constexpr Rounding rounding_of(int64_t zero_point, int64_t qmin, int64_t qmax) {
  return {static_cast<float>(qmin - zero_point), static_cast<float>(qmax - zero_point),
          static_cast<uint32_t>(zero_point) * 0x01010101u};
}

}  // namespace fastinfer::cuda
