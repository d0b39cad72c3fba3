#include "peak.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>

#include "futex.h"
#include "thread_pool.h"

namespace fastinfer::engine {
namespace {

constexpr int kRuns = 60;
constexpr int64_t kUnits = 16;     // of a thread in one run
constexpr int64_t kRounds = 4096;  // of a unit: 10 to 20 us

// Units that threads take as they come; who comes late finds none.
class PeakJob : public Job {
 public:
  PeakJob(const KernelTable& table, int64_t units) : table_(table), units_(units) {}

  void run(int thread, int) override {
    for (int64_t i = next_.fetch_add(1); i < units_; i = next_.fetch_add(1)) {
      multiply_adds_.fetch_add(table_.peak(kRounds));
      done_.raise();
    }
    if (thread == 0) done_.await(static_cast<uint32_t>(units_));
  }

  int64_t multiply_adds() const { return multiply_adds_.load(); }

 private:
  const KernelTable& table_;
  const int64_t units_;
  std::atomic<int64_t> next_{0}, multiply_adds_{0};
  Signal done_;
};

}  // namespace

double measure_peak(const KernelTable& table, int threads) {
  if (table.peak == nullptr) return 0;
  threads = std::clamp(threads, 1, usable_cpus());
  double best = 0;
  for (int i = 0; i < kRuns; i++) {
    const auto job = std::make_shared<PeakJob>(table, kUnits * threads);
    const auto start = std::chrono::steady_clock::now();
    ThreadPool::instance().run(threads, job);
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
    best = std::max(best, static_cast<double>(job->multiply_adds()) / time.count());
  }
  return best;
}

}  // namespace fastinfer::engine
