// A call's work and a thread's share of it. Torch-free.
#pragma once

#include <algorithm>
#include <cstdint>

namespace fastinfer {

// What a call costs in multiply-accumulates, the unit of threads_for, and into how many parts it
// may be split.
struct Work {
  int64_t cost, parts;
};

struct Range {
  int64_t begin, end;
};

// The share of `thread` of 0..threads - 1 in [0, count): nearly equal, from multiples of `unit` on.
inline Range share_of(int64_t count, int64_t unit, int thread, int threads) {
  const int64_t units = (count + unit - 1) / unit;
  return {std::min(count, units * thread / threads * unit),
          std::min(count, units * (thread + 1) / threads * unit)};
}

}  // namespace fastinfer
