// How much work is worth a second thread, and which part of it each thread does. Torch-free.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

namespace fastinfer {

// One multiply-accumulate counts 1. Below this a call stays on its thread: waking the others takes
// longer (0.65-0.96 us hot, up to 40 us after idling) than the work.
constexpr int64_t kSerialWork = 1 << 17;
// A value moved counts like this many multiply-accumulates.
constexpr int64_t kMoveWork = 8;

// The threads worth waking for `work` in `parts` pieces, of those `available`.
inline int useful_threads(int64_t work, int64_t parts, int64_t available) {
  if (work < kSerialWork || parts <= 1) return 1;
  return static_cast<int>(std::min(available, parts));
}

// Thread `thread`'s [begin, end) of [0, count).
inline std::pair<int64_t, int64_t> share_of(int64_t count, int thread, int threads) {
  return {count * thread / threads, count * (thread + 1) / threads};
}

}  // namespace fastinfer
