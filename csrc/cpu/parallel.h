// Splitting work over torch's threads.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <cstdint>

namespace fastinfer {

// One multiply-accumulate counts 1. Below this a call stays on its thread: waking the others takes
// longer (0.65-0.96 us hot, up to 40 us after idling) than the work.
constexpr int64_t kSerialWork = 1 << 17;

inline int threads_for(int64_t work, int64_t parts) {
  if (work < kSerialWork || parts <= 1) return 1;
  const int64_t threads = torch::stable::get_num_threads();
  return static_cast<int>(threads < parts ? threads : parts);
}

// f(begin, end) over [0, count) in `threads` nearly equal parts.
template <class F>
void split_range(int64_t count, int threads, const F& f) {
  if (threads <= 1) return f(int64_t{0}, count);
  torch::stable::parallel_for(0, threads, 1, [&](int64_t t0, int64_t t1) {
    f(count * t0 / threads, count * t1 / threads);
  });
}

}  // namespace fastinfer
