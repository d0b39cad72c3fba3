#include "region_cache.h"

#include <pthread.h>

#include <algorithm>

namespace fastinfer::engine {
namespace {

// Sets of input shapes remembered for one region, and regions remembered at all.
constexpr size_t kPlans = 16, kRegions = 512;

}  // namespace

RegionCache& RegionCache::instance() {
  static RegionCache* const cache = [] {
    auto* made = new RegionCache;
    // Else a child forked while another thread searches would wait for that thread for ever.
    pthread_atfork([] { instance().mutex_.lock(); }, [] { instance().mutex_.unlock(); },
                   [] { instance().mutex_.unlock(); });
    return made;
  }();
  return *cache;
}

namespace {

// When the library is loaded: a child forked while another thread is in the first call would wait for the
// end of it for ever.
[[maybe_unused]] const RegionCache& at_load = RegionCache::instance();

}  // namespace

// Programs are few and the last used is first, so a list is quick to search.
std::list<RegionCache::Region>::iterator RegionCache::find(const std::string& program) {
  const auto found = std::find_if(regions_.begin(), regions_.end(),
                                  [&](const Region& r) { return r.program == program; });
  if (found != regions_.end()) regions_.splice(regions_.begin(), regions_, found);
  return found;
}

std::shared_ptr<const Plan> RegionCache::plan(const std::string& program, const PlanKey& key) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto region = find(program);
    if (region != regions_.end()) {
      std::list<Entry>& plans = region->plans;
      const auto entry = std::find_if(plans.begin(), plans.end(),
                                      [&](const Entry& e) { return e.key == key; });
      if (entry != plans.end()) {
        plans.splice(plans.begin(), plans, entry);
        return entry->plan;
      }
    }
  }
  auto plan = std::make_shared<const Plan>(read_program(program), key.inputs, key.weights,
                                           table_of(key.isa));
  const std::lock_guard<std::mutex> lock(mutex_);
  if (find(program) == regions_.end()) {
    regions_.push_front({program, {}});
    if (regions_.size() > kRegions) regions_.pop_back();
  }
  std::list<Entry>& plans = regions_.front().plans;
  plans.push_front({key, plan});
  if (plans.size() > kPlans) plans.pop_back();
  return plan;
}

}  // namespace fastinfer::engine
