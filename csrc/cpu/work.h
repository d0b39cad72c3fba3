// How much work is worth a second thread, and which part of it each thread does. Torch-free.
#pragma once

#include <algorithm>
#include <cstdint>

namespace fastinfer {

// One multiply-accumulate costs 1. Below this a call stays on its thread: waking the others takes
// longer (0.65-0.96 us hot, up to 40 us after idling) than the work.
constexpr int64_t kSerialWork = 1 << 17;
// A value moved costs like this many multiply-accumulates.
constexpr int64_t kMoveWork = 8;

// What a call costs, and into how many parts it may be split.
struct Work {
  int64_t cost, parts;
};

// The threads worth waking, of those `available`.
inline int useful_threads(int64_t cost, int64_t parts, int64_t available) {
  if (cost < kSerialWork || parts <= 1) return 1;
  return static_cast<int>(std::min(available, parts));
}

inline int useful_threads(const Work& work, int64_t available) {
  return useful_threads(work.cost, work.parts, available);
}

inline int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

struct Range {
  int64_t begin, end;
};

// The share of `thread` of 0..threads - 1 in [0, count): nearly equal, from multiples of `unit` on.
inline Range share_of(int64_t count, int64_t unit, int thread, int threads) {
  const int64_t units = divide_up(count, unit);
  return {std::min(count, units * thread / threads * unit),
          std::min(count, units * (thread + 1) / threads * unit)};
}
inline Range share_of(int64_t count, int thread, int threads) {
  return share_of(count, 1, thread, threads);
}

}  // namespace fastinfer
