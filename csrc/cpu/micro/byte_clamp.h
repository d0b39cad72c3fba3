// The last steps to uint8 as vectors in memory, which instructions take as operands.
#pragma once

#include <cstdint>
#include <cstring>

namespace fastinfer {
namespace {

// clamp(v + zero_point, low, high): zero_point as int16, low and high as bytes.
struct ByteClamp {
  alignas(64) int16_t zero_point[32];
  alignas(64) uint8_t low[64];
  alignas(64) uint8_t high[64];
  bool is_plain;  // bytes are what saturation makes them

  ByteClamp(int32_t zero_point_in, int32_t low_in, int32_t high_in) {
    for (auto& v : zero_point) v = static_cast<int16_t>(zero_point_in);
    std::memset(low, low_in, sizeof(low));
    std::memset(high, high_in, sizeof(high));
    is_plain = zero_point_in == 0 && low_in == 0 && high_in == 255;
  }
};

}  // namespace
}  // namespace fastinfer
