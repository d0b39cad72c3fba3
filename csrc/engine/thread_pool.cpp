#include "thread_pool.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <fstream>
#include <string>
#include <system_error>
#include <thread>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace fastinfer::engine {
namespace {

constexpr uint32_t kTeamBits = 8;
constexpr uint32_t kMaxTeam = (1u << kTeamBits) - 1;
// Pauses before a barrier yields and a worker parks. One takes 10 to 40 ns: a barrier spins for some
// ten microseconds, a worker for some hundred, which covers the Python code between two calls.
constexpr int kBarrierSpins = 500;
constexpr int kWorkerSpins = 5000;

void pause_cpu() {
#if defined(__x86_64__)
  _mm_pause();
#else
  std::this_thread::yield();
#endif
}

// CPU time a cgroup (version 2) grants, in CPUs; 0 when there is no limit.
int cgroup_cpus() {
  std::ifstream file("/sys/fs/cgroup/cpu.max");
  std::string quota;
  double period = 0;
  if (!(file >> quota >> period) || quota == "max" || period <= 0) return 0;
  return std::max(1, static_cast<int>(std::stod(quota) / period));
}

}  // namespace

int usable_cpus() {
  static const int cpus = [] {
    cpu_set_t set;
    int count = static_cast<int>(std::thread::hardware_concurrency());
    if (sched_getaffinity(0, sizeof(set), &set) == 0) count = CPU_COUNT(&set);
    const int limit = cgroup_cpus();
    return std::max(1, limit > 0 ? std::min(limit, count) : count);
  }();
  return cpus;
}

void Barrier::wait(int threads) {
  const int phase = phase_.load(std::memory_order_relaxed);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == threads) {
    arrived_.store(0, std::memory_order_relaxed);
    phase_.store(phase + 1, std::memory_order_release);
    return;
  }
  for (int spins = 0; phase_.load(std::memory_order_acquire) == phase; spins++) {
    if (spins < kBarrierSpins) {
      pause_cpu();
    } else {
      sched_yield();
    }
  }
}

ThreadPool& ThreadPool::instance() {
  static ThreadPool* const pool = [] {
    auto* made = new ThreadPool;
    // In a child only the forking thread lives on.
    pthread_atfork(nullptr, nullptr, [] { instance().forget_workers(); });
    return made;
  }();
  return *pool;
}

void ThreadPool::forget_workers() {
  workers_ = 0;
  running_.store(0);
  busy_.store(false);
}

void ThreadPool::start_workers(int count) {
  // A worker is told what was posted before it starts, so it neither misses nor repeats a job.
  const uint32_t seen = posted_.load();
  try {
    for (; workers_ < count; workers_++) {
      std::thread(&ThreadPool::work, this, workers_ + 1, seen).detach();
    }
  } catch (const std::system_error&) {
    // No more threads to be had: teams stay smaller.
  }
}

void ThreadPool::work(int index, uint32_t seen) {
  for (;;) {
    uint32_t posted = posted_.load(std::memory_order_acquire);
    for (int spins = 0; posted == seen && spins < kWorkerSpins; spins++) {
      pause_cpu();
      posted = posted_.load(std::memory_order_acquire);
    }
    if (posted == seen) {
      posted_.wait(seen, std::memory_order_acquire);
      posted = posted_.load(std::memory_order_acquire);
    }
    if (posted == seen) continue;
    seen = posted;
    const int team = static_cast<int>(posted & kMaxTeam);
    if (index >= team) continue;
    job_(context_, index, team);
    running_.fetch_sub(1, std::memory_order_release);
  }
}

void ThreadPool::run(int threads, Job job, void* context) {
  threads = std::min({threads, usable_cpus(), static_cast<int>(kMaxTeam)});
  if (threads <= 1 || busy_.exchange(true, std::memory_order_acquire)) {
    return job(context, 0, 1);
  }
  if (workers_ < threads - 1) start_workers(threads - 1);
  threads = std::min(threads, workers_ + 1);
  if (threads > 1) {
    job_ = job;
    context_ = context;
    running_.store(threads - 1, std::memory_order_relaxed);
    const uint32_t next = (posted_.load(std::memory_order_relaxed) >> kTeamBits) + 1;
    posted_.store(next << kTeamBits | static_cast<uint32_t>(threads), std::memory_order_release);
    posted_.notify_all();
  }
  job(context, 0, threads);
  // A worker that is not running now is about to: it has been woken.
  for (int spins = 0; running_.load(std::memory_order_acquire) != 0; spins++) {
    if (spins < kBarrierSpins) {
      pause_cpu();
    } else {
      sched_yield();
    }
  }
  busy_.store(false, std::memory_order_release);
}

}  // namespace fastinfer::engine
