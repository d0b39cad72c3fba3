// A thread's scratch memory, kept between calls.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

namespace fastinfer {

// At least `bytes` bytes on a cache line; contents are unspecified. One buffer a thread and `Tag`.
template <class Tag>
uint8_t* scratch(int64_t bytes) {
  struct Free {
    void operator()(uint8_t* p) const { std::free(p); }
  };
  static thread_local std::unique_ptr<uint8_t, Free> memory;
  static thread_local int64_t capacity = 0;
  if (capacity < bytes) {
    const int64_t rounded = (bytes + 4095) / 4096 * 4096;
    capacity = 0;  // also when this throws
    memory.reset(static_cast<uint8_t*>(std::aligned_alloc(64, static_cast<size_t>(rounded))));
    if (!memory) throw std::bad_alloc();
    capacity = rounded;
  }
  return memory.get();
}

}  // namespace fastinfer
