#include "arena.h"

#include <algorithm>
#include <numeric>

namespace fastinfer::engine {
namespace {

constexpr int64_t kAlign = 64;

int64_t rounded(int64_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }

bool overlap(const Lifetime& a, const Lifetime& b) {
  return a.first <= b.last && b.first <= a.last;
}

}  // namespace

// Largest first, each at the lowest free place among those that live with it.
ArenaPlan plan_arena(const std::vector<Lifetime>& lifetimes) {
  ArenaPlan plan{std::vector<int64_t>(lifetimes.size(), 0), 0, 0};
  std::vector<size_t> order(lifetimes.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return lifetimes[a].bytes > lifetimes[b].bytes;
  });
  std::vector<size_t> placed;
  for (const size_t index : order) {
    std::vector<std::pair<int64_t, int64_t>> taken;
    for (const size_t other : placed) {
      if (overlap(lifetimes[index], lifetimes[other])) {
        const int64_t begin = plan.offsets[other];
        taken.emplace_back(begin, begin + rounded(lifetimes[other].bytes));
      }
    }
    std::sort(taken.begin(), taken.end());
    int64_t at = 0;
    for (const auto& [begin, end] : taken) {
      if (at + rounded(lifetimes[index].bytes) <= begin) break;
      at = std::max(at, end);
    }
    plan.offsets[index] = at;
    plan.bytes = std::max(plan.bytes, at + rounded(lifetimes[index].bytes));
    placed.push_back(index);
  }
  for (const Lifetime& now : lifetimes) {
    int64_t alive = 0;
    for (const Lifetime& other : lifetimes) {
      if (other.first <= now.first && now.first <= other.last) alive += rounded(other.bytes);
    }
    plan.lower_bound = std::max(plan.lower_bound, alive);
  }
  return plan;
}

}  // namespace fastinfer::engine
