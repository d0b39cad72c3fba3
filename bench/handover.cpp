// What a line of cache takes from one CPU to another and back, in ns: the median of some tries. Prints one number;
// fails where there are no two CPUs to pin threads to.
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <thread>
#include <vector>

namespace {

// The first turns wait for a CPU to wake.
constexpr int kFirst = 100, kTurns = 20000, kTries = 5;

alignas(128) std::atomic<int> turn{0};

bool pin(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  return sched_setaffinity(0, sizeof(set), &set) == 0;
}

// One thread makes the odd numbers, the other the even ones.
void take_turns(int first, int count) {
  for (int i = first; i < first + 2 * count; i += 2) {
    while (turn.load(std::memory_order_acquire) != i) {
    }
    turn.store(i + 1, std::memory_order_release);
  }
}

}  // namespace

int main() {
  cpu_set_t usable;
  if (sched_getaffinity(0, sizeof(usable), &usable) != 0) return 1;
  std::vector<int> cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE && cpus.size() < 2; cpu++) {
    if (CPU_ISSET(cpu, &usable)) cpus.push_back(cpu);
  }
  if (cpus.size() < 2 || !pin(cpus[0])) return 1;
  std::vector<double> found;
  std::atomic<bool> is_pinned{true};
  for (int i = 0; i < kTries; i++) {
    turn = 0;
    std::thread other([&] {
      if (!pin(cpus[1])) is_pinned = false;
      take_turns(1, kFirst + kTurns);
    });
    take_turns(0, kFirst);
    const auto start = std::chrono::steady_clock::now();
    take_turns(2 * kFirst, kTurns);
    const std::chrono::duration<double, std::nano> time = std::chrono::steady_clock::now() - start;
    other.join();
    found.push_back(time.count() / kTurns);
  }
  if (!is_pinned) return 1;
  std::sort(found.begin(), found.end());
  std::printf("%.0f\n", found[kTries / 2]);
}
