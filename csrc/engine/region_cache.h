// The plans of programs that were run lately. Torch-free.
#pragma once

#include <list>
#include <memory>
#include <mutex>
#include <string>

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

  // The plan of a program for `key`, made when it is not at hand. Throws std::invalid_argument.
  std::shared_ptr<const Plan> plan(const std::string& program, const PlanKey& key);

 private:
  struct Entry {
    PlanKey key;
    std::shared_ptr<const Plan> plan;
  };
  struct Region {
    std::string program;
    std::list<Entry> plans;  // last used first
  };

  std::list<Region>::iterator find(const std::string& program);

  std::mutex mutex_;
  std::list<Region> regions_;  // last used first
};

}  // namespace fastinfer::engine
