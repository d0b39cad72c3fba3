// The plans of programs that were run lately. Torch-free.
#pragma once

#include <list>
#include <memory>
#include <mutex>
#include <span>
#include <unordered_map>

#include "plan.h"

namespace fastinfer::engine {

// What a plan depends on besides the program itself.
struct PlanKey {
  Isa isa;
  std::vector<Weight> weights;
  std::vector<Value> inputs;
  bool operator==(const PlanKey&) const = default;
};

class RegionCache {
 public:
  static RegionCache& instance();

  // The plan of `words` for `key`, made when it is not at hand. Throws std::invalid_argument.
  std::shared_ptr<const Plan> plan(std::span<const int64_t> words, const PlanKey& key);

 private:
  struct Entry {
    PlanKey key;
    std::shared_ptr<const Plan> plan;
  };
  using Region = std::list<Entry>;  // last used first

  std::mutex mutex_;
  std::list<std::pair<int64_t, Region>> regions_;  // last used first
  std::unordered_map<int64_t, std::list<std::pair<int64_t, Region>>::iterator> by_id_;
};

}  // namespace fastinfer::engine
