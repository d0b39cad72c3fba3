#include "pack_pairs.h"

#include <algorithm>

namespace fastinfer {
namespace {

// 255 * 128 = 32640 fits int16, 255 * 129 does not.
constexpr int kLaneBound = 128;
// How many later entries are tried as a partner: the cost of packing stays linear in K.
constexpr size_t kWindow = 24;

// nr weights of 4 consecutive inputs, and the sums of each 16-bit lane by sign.
struct Entry {
  int32_t offset = 0;
  std::vector<int8_t> weight;
  std::vector<uint8_t> positive, negative;
  bool is_used = false;

  void sum_lanes() {
    const size_t lanes = weight.size() / 2;
    positive.assign(lanes, 0);
    negative.assign(lanes, 0);
    for (size_t i = 0; i < weight.size(); i++) {
      const int w = weight[i];
      if (w > 0) positive[i / 2] = static_cast<uint8_t>(positive[i / 2] + w);
      if (w < 0) negative[i / 2] = static_cast<uint8_t>(negative[i / 2] - w);
    }
  }
  bool is_zero() const {
    return std::all_of(weight.begin(), weight.end(), [](int8_t w) { return w == 0; });
  }
};

bool fit_together(const std::vector<uint8_t>& a, const std::vector<uint8_t>& b) {
  int worst = 0;
  for (size_t i = 0; i < a.size(); i++) worst = std::max(worst, int{a[i]} + int{b[i]});
  return worst <= kLaneBound;
}

// Moves the second weight of every unsafe lane into a new entry for the same inputs; what is left
// is one weight (at most 127) a lane in both.
bool split_unsafe(Entry& entry, Entry& rest) {
  bool any = false;
  rest.offset = entry.offset;
  rest.weight.assign(entry.weight.size(), 0);
  for (size_t lane = 0; lane < entry.positive.size(); lane++) {
    if (entry.positive[lane] <= kLaneBound && entry.negative[lane] <= kLaneBound) continue;
    std::swap(rest.weight[2 * lane + 1], entry.weight[2 * lane + 1]);
    any = true;
  }
  if (any) {
    entry.sum_lanes();
    rest.sum_lanes();
  }
  return any;
}

void append(PairedPanel& panel, const Entry& entry) {
  panel.offsets.push_back(entry.offset);
  panel.weight.insert(panel.weight.end(), entry.weight.begin(), entry.weight.end());
}

}  // namespace

PairedPanel pack_pairs(const int8_t* panel, int k_groups, int nr) {
  std::vector<Entry> entries;
  const int64_t size = int64_t{nr} * 4;
  for (int g = 0; g < k_groups; g++) {
    Entry entry, rest;
    entry.offset = g * 4;
    entry.weight.assign(panel + g * size, panel + (g + 1) * size);
    if (entry.is_zero()) continue;
    entry.sum_lanes();
    const bool is_split = split_unsafe(entry, rest);
    entries.push_back(std::move(entry));
    if (is_split) entries.push_back(std::move(rest));
  }
  PairedPanel result;
  std::vector<size_t> alone;
  for (size_t i = 0; i < entries.size(); i++) {
    if (entries[i].is_used) continue;
    entries[i].is_used = true;
    bool is_paired = false;
    const size_t end = std::min(entries.size(), i + 1 + kWindow);
    for (size_t j = i + 1; j < end && !is_paired; j++) {
      if (entries[j].is_used || !fit_together(entries[i].positive, entries[j].positive) ||
          !fit_together(entries[i].negative, entries[j].negative)) {
        continue;
      }
      entries[j].is_used = is_paired = true;
      append(result, entries[i]);
      append(result, entries[j]);
      result.pairs++;
    }
    if (!is_paired) alone.push_back(i);
  }
  for (size_t i : alone) append(result, entries[i]);
  result.singles = static_cast<int>(alone.size());
  return result;
}

}  // namespace fastinfer
