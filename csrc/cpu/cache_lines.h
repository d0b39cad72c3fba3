// Lines of cache, and asking for them. Torch-free.
#pragma once

#include <cstdint>

namespace fastinfer {

constexpr int64_t kLineBytes = 64;

// kL2Once: into L2, and not to L3 when they leave it, where the CPU is known to do that: see read_once.h.
enum class Cache { kL1, kL2, kL2Once };

// A stride at which neighbours do not share the few cache sets that multiples of 1 KiB map to.
inline int64_t apart(int64_t stride) { return stride % 1024 == 0 ? stride + kLineBytes : stride; }

// Asks for `bytes` bytes, which may be nobody's memory: nothing is read.
template <Cache kInto>
inline void prefetch(const void* from, int64_t bytes) {
  const auto* const at = static_cast<const char*>(from);
  for (int64_t i = 0; i < bytes; i += kLineBytes) {
    __builtin_prefetch(at + i, 0, kInto == Cache::kL1 ? 3 : kInto == Cache::kL2 ? 2 : 0);
  }
}

// Asks for some of a packed weight, into L2. is_read_once: see read_once.h.
inline void prefetch_weight(const void* from, int64_t bytes, bool is_read_once) {
  is_read_once ? prefetch<Cache::kL2Once>(from, bytes) : prefetch<Cache::kL2>(from, bytes);
}

}  // namespace fastinfer
