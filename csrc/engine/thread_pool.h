// The engine's threads: spin for a while, then park.
//
// One job runs at a time, on a team of threads that includes the caller. A caller that finds the pool
// in use runs its job alone: with many callers the cores are busy anyway. Workers start when first
// needed and live until the process ends; a forked child starts its own.
#pragma once

#include <atomic>
#include <cstdint>

namespace fastinfer::engine {

// CPUs this process may use: its affinity, and its share of time where a cgroup limits that.
int usable_cpus();

// A meeting point of a team. Spins, because steps end microseconds apart, and gives the core away when
// it takes longer: the other thread may be waiting for this core.
class Barrier {
 public:
  // Returns when `threads` threads have called it, the same number from each.
  void wait(int threads);

 private:
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<int> phase_{0};
};

class ThreadPool {
 public:
  using Job = void (*)(void* context, int thread, int threads);

  // The process's pool; never destroyed, so that busy threads outlive static destructors.
  static ThreadPool& instance();

  // Calls job(context, i, n) for every i in [0, n) at once, n <= threads; returns when all are done.
  // n is 1 when the pool is in use, and at most usable_cpus().
  void run(int threads, Job job, void* context);

 private:
  ThreadPool() = default;
  void start_workers(int count);
  void work(int index, uint32_t seen);
  void forget_workers();

  // Counts jobs in its upper 24 bits; the lower 8 are the team's size, so that a worker learns from
  // one read whether a job is its own.
  alignas(64) std::atomic<uint32_t> posted_{0};
  alignas(64) std::atomic<int> running_{0};
  alignas(64) std::atomic<bool> busy_{false};
  Job job_ = nullptr;
  void* context_ = nullptr;
  int workers_ = 0;
};

}  // namespace fastinfer::engine
