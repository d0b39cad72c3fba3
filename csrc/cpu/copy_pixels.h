// Rows of bytes from one image to another. Torch-free.
#pragma once

#include <cstdint>
#include <cstring>

namespace fastinfer {

// `count` rows of `bytes` bytes; a row begins `step` bytes after the one before.
inline void copy_pixels(uint8_t* to, int64_t to_step, const uint8_t* from, int64_t from_step,
                        int64_t bytes, int64_t count) {
  if (to_step == bytes && from_step == bytes) {
    std::memcpy(to, from, static_cast<size_t>(bytes * count));
    return;
  }
  for (int64_t i = 0; i < count; i++, to += to_step, from += from_step) {
    std::memcpy(to, from, static_cast<size_t>(bytes));
  }
}

}  // namespace fastinfer
