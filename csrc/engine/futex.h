// Sleeping until a number changes. Torch-free.
//
// Not std::atomic::wait, which yields before it sleeps, and not sched_yield: since Linux 6.18 a thread
// that yields gives up its whole share of time. Next to other busy processes a network then took 25
// times as long as alone, where a thread that sleeps is woken in time.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

#if defined(__x86_64__)
#include <immintrin.h>
#endif
#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <climits>
#endif

namespace fastinfer::engine {

// Tells the core that this thread waits for another one.
inline void pause_cpu() {
#if defined(__x86_64__)
  _mm_pause();
#endif
}

// How long a thread has waited. In time, not in pauses: one takes 10 ns on Granite Rapids, 40 on others.
class Waiting {
 public:
  explicit Waiting(std::chrono::microseconds limit) : limit_(limit) {}
  // After a pause: whether the time is over. Looks at the clock now and then.
  bool is_over() {
    pause_cpu();
    if (++pauses_ % 64 != 0) return false;
    const auto now = Clock::now();
    if (pauses_ == 64) start_ = now;
    return now - start_ >= limit_;
  }

 private:
  using Clock = std::chrono::steady_clock;
  const std::chrono::microseconds limit_;
  Clock::time_point start_;
  uint32_t pauses_ = 0;
};

// A counter that only grows. Threads that do not sleep pay one load.
class Signal {
 public:
  uint32_t value() const { return value_.load(std::memory_order_acquire); }

  // Adds 1 and wakes who sleeps.
  void raise() {
    // In one order with `sleepers_`: either the sleeper sees the new value or it is seen here.
    value_.fetch_add(1, std::memory_order_seq_cst);
    wake();
  }

  // Wakes who sleeps, though the value has not changed: for one that is about to, since waking takes time.
  void wake() {
    if (sleepers_.load(std::memory_order_seq_cst) == 0) return;
#if defined(__linux__)
    syscall(SYS_futex, &value_, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
#else
    value_.notify_all();
#endif
  }

  // Sleeps while the value is `seen`; may return before.
  void sleep(uint32_t seen) {
    sleepers_.fetch_add(1, std::memory_order_seq_cst);
#if defined(__linux__)
    syscall(SYS_futex, &value_, FUTEX_WAIT_PRIVATE, seen, nullptr, nullptr, 0);
#else
    value_.wait(seen, std::memory_order_seq_cst);
#endif
    sleepers_.fetch_sub(1, std::memory_order_relaxed);
  }

  // Returns when the value is `wanted` or more: spins for some tens of microseconds, then sleeps.
  void await(uint32_t wanted) {
    Waiting waiting(kLongestSpin);
    bool is_long = false;
    for (uint32_t seen = value(); seen < wanted; seen = value()) {
      if (is_long) {
        sleep(seen);
      } else {
        is_long = waiting.is_over();
      }
    }
  }

  // In a forked child, where nobody sleeps.
  void forget_sleepers() { sleepers_.store(0, std::memory_order_relaxed); }

 private:
  // Longer than parts of one step differ in time.
  static constexpr std::chrono::microseconds kLongestSpin{50};

  std::atomic<uint32_t> value_{0};
  std::atomic<uint32_t> sleepers_{0};
};

}  // namespace fastinfer::engine
