// The engine's threads: spin for a while, then park.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>

#include "futex.h"

namespace fastinfer::engine {

// CPUs this process may use: its affinity, and its share of time where a cgroup limits that.
int usable_cpus();

// Work that any number of threads may join, at any time; run(0, n) returns when all of it is done.
class Job {
 public:
  virtual ~Job() = default;
  // Only thread 0, the caller, may throw.
  virtual void run(int thread, int threads) = 0;
};

// One job at a time has the workers. A caller that finds another's job there runs its own alone: with
// many callers the cores are busy anyway. Nobody waits for a worker that has no core to run on: the
// caller does what is left and returns, the worker lets go of the job when it gets there.
//
// Workers start when first needed and live until the process ends; a forked child starts its own.
class ThreadPool {
 public:
  // The process's pool; never destroyed, so that its threads outlive static destructors.
  static ThreadPool& instance();

  // Wakes workers that are parked: for a caller who will have a job for them before they park again.
  void wake() { posted_.wake(); }

  // Runs the job on this thread and on at most threads - 1 others. Throws what the job throws.
  void run(int threads, const std::shared_ptr<Job>& job);

 private:
  ThreadPool() = default;
  void start_workers(int count);
  void work(int index, uint32_t seen);
  void post(std::shared_ptr<Job> job, int team);
  void release();
  void lock_for_fork();
  void unlock_after_fork(bool is_child);

  alignas(64) Signal posted_;  // jobs so far; workers wait for it to change
  alignas(64) std::atomic<bool> busy_{false};
  std::mutex mutex_;  // of what follows
  std::shared_ptr<Job> job_;
  int team_ = 0;
  int workers_ = 0;
};

}  // namespace fastinfer::engine
