#include "batch.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <utility>

#include "first_error.h"
#include "futex.h"
#include "recorder.h"
#include "thread_pool.h"

namespace fastinfer::engine {
namespace {

// Memory for a slice's values that a core's cache keeps, more or less: 1 MiB of L2 and its share of L3.
constexpr int64_t kSliceBytes = 2 << 20;
// A layer's weights come from a further cache, and some are transformed, once for a slice. So it has the more
// samples, at least, the more times weights are a sample's values (16 images on Zen 5, a slice of 2, 4, 8:
// ResNet-50, 20 times, 1, 0.966, 0.956 of the time; ResNet-18, 12 times, 1, 0.94, 0.915; MobileNetV3, 6 times,
// 1, 1, 1; DenseNet-121, 4 times, 1, 0.99, 1.015).
struct LeastSamples {
  int64_t times, samples;
};
constexpr LeastSamples kLeastSamples[] = {{10, 8}, {5, 4}, {0, 2}};
// More than four only where their values take so much: a call after others' finds them in memory (ResNet-50, 10 MiB
// for eight samples, takes 0.99 of the time where calls follow one another, and 1.015 where each is the first).
constexpr int64_t kMostSliceBytes = 8 << 20, kFewSamples = 4;
// Weights that do not stay in the last cache are read again for every slice: then the batch is better.
constexpr int64_t kMostWeights = 64 << 20;

// The samples of one slice, as a range of the batch.
struct Slice {
  int64_t first, count;
};

// Slices of at most two sizes, one apart; an only one where slices are no use.
class Slices {
 public:
  Slices(const Plan& whole, int threads) : batch_(whole.batch()) {
    const int64_t arena = whole.arena().bytes;
    if (batch_ < 2 || arena <= kSliceBytes || whole.weight_bytes() > kMostWeights) return;
    const int64_t most = (batch_ + threads - 1) / threads;
    const int64_t size =
        std::min(most, std::max(least_samples(whole), kSliceBytes / (arena / batch_)));
    count_ = (batch_ + size - 1) / size;
    // As many for each thread, where there are samples enough.
    count_ = std::min((count_ + threads - 1) / threads * threads, batch_);
  }

  int64_t count() const { return count_; }
  Slice operator[](int64_t index) const {
    const int64_t first = batch_ * index / count_;
    return {first, batch_ * (index + 1) / count_ - first};
  }

 private:
  static int64_t least_samples(const Plan& whole) {
    const int64_t weights = whole.weight_bytes() * whole.batch(), values = whole.arena().bytes;
    const auto* found = std::find_if(std::begin(kLeastSamples), std::end(kLeastSamples),
                                     [&](const auto& l) { return weights >= l.times * values; });
    const int64_t most = kMostSliceBytes * whole.batch() / values;
    return std::min(found->samples, std::max(kFewSamples, most));
  }

  int64_t batch_, count_ = 1;
};

// The plans of the slices and where the batch is. Threads take slices as they come; who comes late
// finds none and touches nothing else.
class BatchJob : public Job {
 public:
  BatchJob(const std::string& program, const PlanKey& key, const Plan& whole, const Slices& slices,
           std::span<const void* const> inputs, std::span<void* const> outputs, int64_t shared,
           bool is_timed)
      : slices_(slices),
        batch_(whole.batch()),
        shared_(shared),
        inputs_(inputs.begin(), inputs.end()),
        outputs_(outputs.begin(), outputs.end()) {
    for (const Value& input : key.inputs) input_bytes_.push_back(input.bytes() / batch_);
    for (size_t i = 0; i < outputs.size(); i++) {
      output_bytes_.push_back(whole.output(i).bytes() / batch_);
    }
    for (int64_t i = 0; i < slices.count(); i++) {
      const int64_t count = slices[i].count;
      if (!plan(count)) plans_.emplace_back(count, sliced(program, key, count));
      times_.emplace_back(is_timed ? whole.steps() : 0);
    }
  }

  // Slices that each are one thread's.
  void run(int thread, int) override {
    bool is_first = true;
    for (int64_t i = next_.fetch_add(1); i < shared_; i = next_.fetch_add(1)) {
      if (is_first) runners_.fetch_add(1);
      is_first = false;
      try {
        run_slice(i, 1);
      } catch (...) {
        error_.keep();
      }
      done_.raise();
    }
    if (thread != 0) return;
    done_.await(static_cast<uint32_t>(shared_));
    error_.rethrow();
  }

  void run_slice(int64_t index, int threads) {
    const Slice slice = slices_[index];
    std::vector<const void*> from;
    std::vector<void*> to;
    for (size_t i = 0; i < inputs_.size(); i++) {
      from.push_back(static_cast<const uint8_t*>(inputs_[i]) + slice.first * input_bytes_[i]);
    }
    for (size_t i = 0; i < outputs_.size(); i++) {
      to.push_back(static_cast<uint8_t*>(outputs_[i]) + slice.first * output_bytes_[i]);
    }
    plan(slice.count)->run(from, to, threads, times_[static_cast<size_t>(index)]);
  }

  // Of the whole batch: the mean over the threads that had slices of their own, and all of what
  // they shared. The plans of one program have the same steps.
  void sum_times(std::span<StepTime> sums) const {
    for (size_t i = 0; i < times_.size(); i++) {
      const bool is_own = static_cast<int64_t>(i) < shared_;
      const double share = is_own ? 1.0 / runners_.load() : 1.0;
      for (size_t step = 0; step < sums.size(); step++) {
        sums[step].seconds += share * times_[i][step].seconds;
        sums[step].kernel += share * times_[i][step].kernel;
      }
    }
  }

 private:
  static std::shared_ptr<const Plan> sliced(const std::string& program, PlanKey key,
                                            int64_t count) {
    for (Value& input : key.inputs) input.shape[0] = count;
    return RegionCache::instance().plan(program, key);
  }

  std::shared_ptr<const Plan> plan(int64_t count) const {
    for (const auto& [size, plan] : plans_) {
      if (size == count) return plan;
    }
    return nullptr;
  }

  const Slices slices_;
  const int64_t batch_, shared_;
  const std::vector<const void*> inputs_;
  const std::vector<void*> outputs_;
  std::vector<int64_t> input_bytes_, output_bytes_;  // of one sample
  std::vector<std::pair<int64_t, std::shared_ptr<const Plan>>> plans_;  // by samples
  std::vector<std::vector<StepTime>> times_;  // by slice; empty where they are not wanted
  std::atomic<int64_t> next_{0};
  std::atomic<int> runners_{0};  // threads that took slices
  Signal done_;
  FirstError error_;
};

// times: to be filled for every step, when not empty.
void run_slices(const std::string& program, const PlanKey& key, const Plan& whole,
                const Slices& slices, std::span<const void* const> inputs,
                std::span<void* const> outputs, int threads, std::span<StepTime> times) {
  if (slices.count() == 1) return whole.run(inputs, outputs, threads, times);
  // Whole rounds of a slice for each thread; all threads share what is left.
  const int64_t shared = slices.count() / threads * threads;
  const auto job = std::make_shared<BatchJob>(program, key, whole, slices, inputs, outputs, shared,
                                              !times.empty());
  if (shared > 0) ThreadPool::instance().run(threads, job);
  for (int64_t i = shared; i < slices.count(); i++) job->run_slice(i, threads);
  job->sum_times(times);
}

}  // namespace

void run_batch(const std::string& program, const PlanKey& key, const Plan& whole,
               std::span<const void* const> inputs, std::span<void* const> outputs, int threads) {
  threads = std::clamp(threads, 1, usable_cpus());
  const Slices slices(whole, threads);
  if (!is_recording()) {
    return run_slices(program, key, whole, slices, inputs, outputs, threads, {});
  }
  CallRecord record{program, key.weights, whole.shared_from_this(), slices.count(), threads, 0,
                    std::vector<StepTime>(whole.steps())};
  const auto start = std::chrono::steady_clock::now();
  run_slices(program, key, whole, slices, inputs, outputs, threads, record.steps);
  const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
  record.seconds = time.count();
  add_record(std::move(record));
}

void wake_workers(int threads) {
  if (threads > 1) ThreadPool::instance().wake();
}

}  // namespace fastinfer::engine
