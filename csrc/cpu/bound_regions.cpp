#include "bound_regions.h"

#include <pthread.h>

#include <mutex>
#include <stdexcept>
#include <unordered_map>
#include <utility>

namespace fastinfer {
namespace {

class Registry {
 public:
  static Registry& instance() {
    static Registry* const registry = [] {
      auto* made = new Registry;
      // Else a child forked while another thread looks up would wait for that thread for ever.
      pthread_atfork([] { instance().mutex_.lock(); }, [] { instance().mutex_.unlock(); },
                     [] { instance().mutex_.unlock(); });
      return made;
    }();
    return *registry;
  }

  int64_t add(std::shared_ptr<const BoundRegion> region) {
    const std::lock_guard<std::mutex> lock(mutex_);
    regions_.emplace(next_, std::move(region));
    return next_++;
  }

  std::shared_ptr<const BoundRegion> find(int64_t number) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = regions_.find(number);
    return found == regions_.end() ? nullptr : found->second;
  }

  // Returned, so that its tensors are freed after the lock: that may run Python.
  std::shared_ptr<const BoundRegion> take(int64_t number) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto node = regions_.extract(number);
    return node.empty() ? nullptr : node.mapped();
  }

 private:
  std::mutex mutex_;
  std::unordered_map<int64_t, std::shared_ptr<const BoundRegion>> regions_;
  int64_t next_ = 1;
};

}  // namespace

int64_t bind_region(BoundRegion region) {
  return Registry::instance().add(std::make_shared<const BoundRegion>(std::move(region)));
}

std::shared_ptr<const BoundRegion> bound_region(int64_t number) {
  std::shared_ptr<const BoundRegion> region = Registry::instance().find(number);
  if (region) return region;
  throw std::invalid_argument("int8_region_call: region: expected a number that int8_region_bind "
                              "gave and that was not released, got " + std::to_string(number));
}

void release_region(int64_t number) { Registry::instance().take(number); }

}  // namespace fastinfer
