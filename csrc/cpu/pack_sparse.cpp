#include "pack_sparse.h"

#include <algorithm>
#include <numeric>

namespace fastinfer {
namespace {

// A step of a panel.
class Step {
 public:
  Step(const int8_t* panel, int nr, int first_quad, int quads)
      : panel_(panel), nr_(nr), first_(first_quad), products_(quads * 4) {}

  int8_t weight(int channel, int product) const {
    return panel_[((first_ + product / 4) * int64_t{nr_} + channel) * 4 + product % 4];
  }
  bool is_needed(int lane, int product) const {
    for (int c = lane; c < nr_; c += kPickLanes) {
      if (weight(c, product) != 0) return true;
    }
    return false;
  }
  int count(int lane) const {
    int needed = 0;
    for (int p = 0; p < products_; p++) needed += is_needed(lane, p);
    return needed;
  }
  // The products that a lane needs, in order.
  std::vector<uint8_t> needed(int lane) const {
    std::vector<uint8_t> found;
    for (int p = 0; p < products_; p++) {
      if (is_needed(lane, p)) found.push_back(static_cast<uint8_t>(p));
    }
    return found;
  }

 private:
  const int8_t* panel_;
  int nr_, first_, products_;
};

void add_quad(const Step& step, const std::vector<uint8_t> (&needed)[kPickLanes], size_t quad,
              int nr, std::vector<int8_t>& entries) {
  const auto picked = [&](int lane, size_t t) -> const uint8_t* {
    const std::vector<uint8_t>& all = needed[lane];
    return quad * 4 + t < all.size() ? &all[quad * 4 + t] : nullptr;
  };
  for (int lane = 0; lane < kPickLanes; lane++) {
    for (size_t t = 0; t < 4; t++) {
      const uint8_t* p = picked(lane, t);
      entries.push_back(p ? static_cast<int8_t>(*p) : int8_t{0});
    }
  }
  for (int c = 0; c < nr; c++) {
    for (size_t t = 0; t < 4; t++) {
      const uint8_t* p = picked(c % kPickLanes, t);
      entries.push_back(p ? step.weight(c, *p) : int8_t{0});
    }
  }
}

}  // namespace

int SparsePanel::quads() const { return std::accumulate(picks.begin(), picks.end(), 0); }

std::vector<uint8_t> count_picks(const int8_t* panel, int quads, int nr, int step_quads) {
  std::vector<uint8_t> picks;
  for (int first = 0; first < quads; first += step_quads) {
    const Step step(panel, nr, first, step_quads);
    int most = 0;
    for (int lane = 0; lane < kPickLanes; lane++) most = std::max(most, step.count(lane));
    picks.push_back(static_cast<uint8_t>((most + 3) / 4));
  }
  return picks;
}

SparsePanel pack_sparse(const int8_t* panel, int quads, int nr, int step_quads) {
  SparsePanel out;
  out.picks = count_picks(panel, quads, nr, step_quads);
  for (size_t s = 0; s < out.picks.size(); s++) {
    const Step step(panel, nr, static_cast<int>(s) * step_quads, step_quads);
    std::vector<uint8_t> needed[kPickLanes];
    for (int lane = 0; lane < kPickLanes; lane++) needed[lane] = step.needed(lane);
    for (size_t q = 0; q < out.picks[s]; q++) add_quad(step, needed, q, nr, out.entries);
  }
  return out;
}

}  // namespace fastinfer
