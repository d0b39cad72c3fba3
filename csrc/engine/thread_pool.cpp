#include "thread_pool.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <fstream>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

namespace fastinfer::engine {
namespace {

// Before a worker parks: about as long as it takes to wake it (20 to 60 us in a virtual machine). PyTorch's
// own threads want the CPU that it keeps: with 200 us, six regions with PyTorch's ops between them took
// 1.15 to 1.25 times as long, and models that are one region were no faster.
constexpr std::chrono::microseconds kWorkerSpin{50};

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

ThreadPool& ThreadPool::instance() {
  static ThreadPool* const pool = [] {
    auto* made = new ThreadPool;
    pthread_atfork([] { instance().lock_for_fork(); },
                   [] { instance().unlock_after_fork(false); },
                   [] { instance().unlock_after_fork(true); });
    return made;
  }();
  return *pool;
}

namespace {

// When the library is loaded: see region_cache.cpp.
[[maybe_unused]] const ThreadPool& at_load = ThreadPool::instance();
[[maybe_unused]] const int cpus_at_load = usable_cpus();

}  // namespace

void ThreadPool::lock_for_fork() { mutex_.lock(); }

// In a child only the thread that forked lives on.
void ThreadPool::unlock_after_fork(bool is_child) {
  if (is_child) {
    workers_ = 0;
    job_.reset();
    busy_.store(false);
    posted_.forget_sleepers();
  }
  mutex_.unlock();
}

// With mutex_ held.
void ThreadPool::start_workers(int count) {
  // A worker is told what was posted before it starts, so it does not miss the next job.
  const uint32_t seen = posted_.value();
  try {
    for (; workers_ < count; workers_++) {
      std::thread(&ThreadPool::work, this, workers_ + 1, seen).detach();
    }
  } catch (const std::system_error&) {
    // No more threads to be had: the job runs on those there are.
  }
}

void ThreadPool::work(int index, uint32_t seen) {
  for (;;) {
    uint32_t posted = posted_.value();
    Waiting waiting(kWorkerSpin);
    while (posted == seen && !waiting.is_over()) posted = posted_.value();
    if (posted == seen) {
      posted_.sleep(seen);
      continue;
    }
    seen = posted;
    std::shared_ptr<Job> job;
    int team = 0;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      job = job_;
      team = team_;
    }
    if (job && index < team) job->run(index, team);
  }
}

void ThreadPool::post(std::shared_ptr<Job> job, int team) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (job && workers_ < team - 1) start_workers(team - 1);
  job_ = std::move(job);
  team_ = team;
}

void ThreadPool::run(int threads, const std::shared_ptr<Job>& job) {
  threads = std::min(threads, usable_cpus());
  if (threads <= 1 || busy_.exchange(true, std::memory_order_acquire)) return job->run(0, 1);
  try {
    post(job, threads);
    posted_.raise();
    job->run(0, threads);
  } catch (...) {
    release();
    throw;
  }
  release();
}

void ThreadPool::release() {
  post(nullptr, 0);
  busy_.store(false, std::memory_order_release);
}

}  // namespace fastinfer::engine
