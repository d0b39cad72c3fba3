#include "region_cache.h"

#include <algorithm>

namespace fastinfer::engine {
namespace {

// Sets of input shapes remembered for one region, and regions remembered at all.
constexpr size_t kPlans = 16, kRegions = 512;

}  // namespace

RegionCache& RegionCache::instance() {
  static auto* const cache = new RegionCache;
  return *cache;
}

std::shared_ptr<const Plan> RegionCache::plan(std::span<const int64_t> words,
                                              const PlanKey& key) {
  const int64_t id = program_id(words);
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (const auto found = by_id_.find(id); found != by_id_.end()) {
      regions_.splice(regions_.begin(), regions_, found->second);
      Region& region = found->second->second;
      const auto entry = std::find_if(region.begin(), region.end(),
                                      [&](const Entry& e) { return e.key == key; });
      if (entry != region.end()) {
        region.splice(region.begin(), region, entry);
        return entry->plan;
      }
    }
  }
  const Program program = read_program(words);
  auto plan = std::make_shared<const Plan>(program, key.inputs, key.weights, table_of(key.isa));
  const std::lock_guard<std::mutex> lock(mutex_);
  auto found = by_id_.find(id);
  if (found == by_id_.end()) {
    regions_.emplace_front(id, Region{});
    found = by_id_.emplace(id, regions_.begin()).first;
    if (regions_.size() > kRegions) {
      by_id_.erase(regions_.back().first);
      regions_.pop_back();
    }
  }
  Region& region = found->second->second;
  region.push_front({key, plan});
  if (region.size() > kPlans) region.pop_back();
  return plan;
}

}  // namespace fastinfer::engine
