// The engine under many callers, without torch: every answer is compared bit for bit.
//
//     stress <scenario> <file of case_files.py> <calls a thread>
//
// Exits with 0, or with 1 after saying what was wrong; a sanitizer has exit codes of its own.
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <random>
#include <thread>

#include "case_file.h"
#include "engine/batch.h"
#include "engine/thread_pool.h"

namespace {

constexpr int kCpus = 4;
std::atomic<bool> memory_is_short{false};

}  // namespace

// The pool takes as many threads as there are CPUs. It is told four here, so that on fewer, threads come
// late and are interrupted where it hurts.
extern "C" int sched_getaffinity(pid_t, size_t size, cpu_set_t* set) noexcept {
  CPU_ZERO_S(size, set);
  for (int cpu = 0; cpu < kCpus; cpu++) CPU_SET_S(static_cast<size_t>(cpu), size, set);
  return 0;
}

// The linker has the engine call this (--wrap). A third of the calls fails while memory is short.
extern "C" void* __real_aligned_alloc(size_t align, size_t size);
extern "C" void* __wrap_aligned_alloc(size_t align, size_t size) {
  static std::atomic<int> calls{0};
  if (memory_is_short.load(std::memory_order_relaxed) && calls.fetch_add(1) % 3 == 0) return nullptr;
  return __real_aligned_alloc(align, size);
}

namespace fastinfer::engine {
namespace {

constexpr int kCallers = 8;

[[noreturn]] void fail(const std::string& text) {
  std::fprintf(stderr, "stress: %s\n", text.c_str());
  std::_Exit(1);
}

void expect_true(bool holds, const std::string& text) {
  if (!holds) fail(text);
}

// What one call does apart from what it computes.
struct Manner {
  int threads = 1;
  bool has_own_weights = false;  // copies that are freed when the call returns
  int spaces = 0;                // behind the program: makes it another one to the cache
};

// As csrc/cpu/int8_region.cpp calls the engine. All memory of the call is freed when it returns.
void call(const Case& c, const Manner& manner) {
  wake_workers(manner.threads);
  const std::string program = c.program + std::string(static_cast<size_t>(manner.spaces), ' ');
  const std::vector<Bytes> copies = manner.has_own_weights ? c.weights : std::vector<Bytes>();
  PlanKey key{c.isa, {}, c.shapes};
  for (const Bytes& weight : manner.has_own_weights ? copies : c.weights) {
    key.weights.push_back({weight.data(), weight.size()});
  }
  const std::vector<Bytes> inputs = c.inputs;
  std::vector<Bytes> outputs;
  std::vector<const void*> from;
  std::vector<void*> to;
  for (const Bytes& input : inputs) from.push_back(input.data());
  {
    const auto plan = RegionCache::instance().plan(program, key);
    for (size_t i = 0; i < plan->outputs(); i++) outputs.emplace_back(plan->output(i).bytes(), 0xA5);
    for (const Bytes& output : outputs) to.push_back(output.data());
    run_batch(program, key, *plan, from, to, manner.threads);
  }
  for (size_t i = 0; i < c.wanted.size(); i++) {
    expect_true(outputs[i] == c.wanted[i], c.label + ": output " + std::to_string(i) + " is wrong on " +
                                               std::to_string(manner.threads) + " threads");
  }
}

class Caller {
 public:
  Caller(const std::vector<Case>& cases, uint32_t seed) : random_(seed) {
    for (const Case& c : cases) (c.label.starts_with("slices") ? large_ : small_).push_back(&c);
  }

  // A call of a case and a manner drawn by chance. Batches in slices take as long as many others.
  void operator()() {
    const auto& from = below(100) == 0 ? large_ : small_;
    const Manner manner{1 + below(kCpus), below(4) == 0, below(4) == 0 ? below(100) : 0};
    call(*from[static_cast<size_t>(below(static_cast<int>(from.size())))], manner);
  }
  int below(int count) { return static_cast<int>(random_() % static_cast<uint32_t>(count)); }

 private:
  std::mt19937 random_;
  std::vector<const Case*> small_, large_;
};

void run_callers(const std::vector<Case>& cases, int callers, int calls) {
  std::vector<std::thread> threads;
  for (int i = 0; i < callers; i++) {
    threads.emplace_back([&cases, calls, i] {
      Caller caller(cases, static_cast<uint32_t>(i));
      for (int n = 0; n < calls; n++) caller();
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// Callers that go on until the process ends.
void start_endless(const std::vector<Case>& cases, int callers) {
  for (int i = 0; i < callers; i++) {
    std::thread([&cases, i] {
      for (Caller caller(cases, static_cast<uint32_t>(100 + i));;) caller();
    }).detach();
  }
}

// Mixed shapes, programs, numbers of threads, weights that are freed: plans come and go while others run.
void callers(const std::vector<Case>& cases, int calls) { run_callers(cases, kCallers, calls); }

// Large batches only, on several threads each: slices, and the rest of a round that all share.
void slices(const std::vector<Case>& cases, int calls) {
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; i++) {
    threads.emplace_back([&cases, calls, i] {
      for (int n = 0; n < calls; n++) {
        for (const Case& c : cases) {
          if (c.label.starts_with("slices")) call(c, {1 + (n + i) % kCpus, n % 2 == 0, 0});
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// Each call has weights of its own, so its plan is new to the cache, and gone after some more calls: a
// thread that comes late to a call finds that the call has kept what it needs.
void evictions(const std::vector<Case>& cases, int calls) {
  std::vector<std::thread> threads;
  for (int i = 0; i < kCallers; i++) {
    threads.emplace_back([&cases, calls] {
      for (int n = 0; n < calls; n++) {
        for (const Case& c : cases) {
          if (c.label == "rows_5_k64_n130") call(c, {kCpus, true, 0});
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// One caller at a time has the pool, so every call runs on as many threads as it asks for.
void alone(const std::vector<Case>& cases, int calls) {
  Caller caller(cases, 1);
  for (int n = 0; n < calls * kCallers; n++) caller();
}

// Expects a forked child to do `work` and end.
void expect_child_does(const std::function<void()>& work) {
  const pid_t child = fork();
  if (child == 0) {
    alarm(60);
    work();
    _exit(0);
  }
  int status = 0;
  expect_true(child > 0 && waitpid(child, &status, 0) == child, "no child");
  const int signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  expect_true(signal != SIGALRM, "a forked child hangs");
  if (signal != 0) std::fprintf(stderr, "stress: signal %d\n", signal);
  expect_true(status == 0, "a forked child fails");
}

void expect_child(const std::vector<Case>& cases, int callers, int calls) {
  expect_child_does([&] { run_callers(cases, callers, calls); });
}

// A child starts a pool of its own; the parent's goes on.
void fork_after_use(const std::vector<Case>& cases, int calls) {
  for (int n = 0; n < 5; n++) {
    run_callers(cases, 2, calls / 5 + 1);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));  // workers sleep by then
    expect_child(cases, 2, calls / 5 + 1);
  }
  run_callers(cases, 2, calls);
}

// While other threads hold whatever a call holds.
void fork_while_busy(const std::vector<Case>& cases, int calls) {
  start_endless(cases, 3);
  for (int n = 0; n < std::max(10, calls / 10); n++) expect_child(cases, 1, 5);
}

// Returns from main while callers call: static destructors run beside them.
void exit_while_busy(const std::vector<Case>& cases, int calls) {
  start_endless(cases, 3);
  Caller caller(cases, 0);
  for (int n = 0; n < std::min(calls, 200); n++) caller();
}

// A call that finds no memory throws, on whatever thread that was; later ones are right again.
void short_of_memory(const std::vector<Case>& cases, int calls) {
  std::atomic<int> failed{0};
  const auto rounds = std::max(20, calls / 20);
  for (int round = 0; round < rounds; round++) {
    std::vector<std::thread> threads;  // new ones, which have no scratch memory yet
    memory_is_short.store(true);
    for (int i = 0; i < 2; i++) {
      threads.emplace_back([&, i] {
        Caller caller(cases, static_cast<uint32_t>(2 * round + i));
        for (int n = 0; n < 10; n++) {
          try {
            caller();
          } catch (const std::bad_alloc&) {
            failed++;
          }
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    memory_is_short.store(false);
    Caller caller(cases, static_cast<uint32_t>(round));
    for (int n = 0; n < 10; n++) caller();
  }
  expect_true(failed > rounds / 4, "memory was never short");
}

class Throwing : public Job {
 public:
  void run(int thread, int) override {
    if (thread == 0) throw std::bad_alloc();
  }
};

class Nothing : public Job {
 public:
  void run(int, int) override {}
};

class Meeting : public Job {
 public:
  void run(int thread, int threads) override {
    if (thread != 0) here_.raise();
    if (thread == 0 && threads > 1) here_.await(1);
    if (thread == 0) threads_ = threads;
  }
  int threads() const { return threads_; }

 private:
  Signal here_;
  int threads_ = 0;
};

// The pool is free again after a job that throws: the next one gets its threads.
void throwing_job(const std::vector<Case>&, int calls) {
  for (int n = 0; n < calls; n++) {
    try {
      ThreadPool::instance().run(kCpus, std::make_shared<Throwing>());
      fail("the job's error is lost");
    } catch (const std::bad_alloc&) {
    }
    // Long enough for the workers to sleep.
    if (n % 10 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    const auto job = std::make_shared<Meeting>();
    ThreadPool::instance().run(kCpus, job);
    expect_true(job->threads() > 1 || usable_cpus() == 1, "the pool stays busy");
  }
}

// While other threads do nothing but ask for the pool, which is locked for much of that time.
void fork_while_posting(const std::vector<Case>&, int calls) {
  const auto post = [] { ThreadPool::instance().run(kCpus, std::make_shared<Nothing>()); };
  for (int i = 0; i < 3; i++) {
    std::thread([post] {
      for (;;) post();
    }).detach();
  }
  for (int n = 0; n < std::max(10, calls / 10); n++) expect_child_does(post);
}

using Scenario = void (*)(const std::vector<Case>&, int);
const std::map<std::string, Scenario> kScenarios = {
    {"callers", callers},
    {"slices", slices},
    {"evictions", evictions},
    {"alone", alone},
    {"fork_after_use", fork_after_use},
    {"fork_while_busy", fork_while_busy},
    {"fork_while_posting", fork_while_posting},
    {"exit_while_busy", exit_while_busy},
    {"short_of_memory", short_of_memory},
    {"throwing_job", throwing_job},
};

}  // namespace

// Never freed: callers may still read them when the process ends.
const std::vector<Case>* cases;

}  // namespace fastinfer::engine

int main(int count, char** arguments) {
  using namespace fastinfer::engine;
  const auto scenario = count == 4 ? kScenarios.find(arguments[1]) : kScenarios.end();
  if (scenario == kScenarios.end()) {
    std::fprintf(stderr, "usage: stress <scenario> <file> <calls>; scenarios:");
    for (const auto& entry : kScenarios) std::fprintf(stderr, " %s", entry.first.c_str());
    std::fprintf(stderr, "\n");
    return 2;
  }
  cases = new std::vector<Case>(CaseFile(arguments[2]).cases());
  scenario->second(*cases, std::atoi(arguments[3]));
  return 0;
}
