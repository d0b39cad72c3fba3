// Splitting work over torch's threads.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <cstdint>

#include "work.h"

namespace fastinfer {

inline int threads_for(int64_t work, int64_t parts) {
  return useful_threads(work, parts, torch::stable::get_num_threads());
}

// f(begin, end) over [0, count) in `threads` nearly equal parts.
template <class F>
void split_range(int64_t count, int threads, const F& f) {
  if (threads <= 1) return f(int64_t{0}, count);
  torch::stable::parallel_for(0, threads, 1, [&](int64_t t0, int64_t t1) {
    f(count * t0 / threads, count * t1 / threads);
  });
}

// All of a driver's work, on as many threads as it has use for: driver.run_part(i, threads) on each.
template <class Driver>
void run_driver(const Driver& driver) {
  const int threads = useful_threads(driver.work(), torch::stable::get_num_threads());
  split_range(threads, threads, [&](int64_t t0, int64_t t1) {
    for (int64_t t = t0; t < t1; t++) driver.run_part(static_cast<int>(t), threads);
  });
}

}  // namespace fastinfer
