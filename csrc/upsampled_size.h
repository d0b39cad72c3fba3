// The size that a factor asks for. Torch-free: the engine counts so too.
#pragma once

#include <cstdint>

namespace fastinfer {

inline int64_t upsampled_size(int64_t size, double factor) {
  return static_cast<int64_t>(static_cast<double>(size) * factor);
}

}  // namespace fastinfer
