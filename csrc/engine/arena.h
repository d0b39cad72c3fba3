// Places for values in one block of memory; values that live at the same time do not overlap.
#pragma once

#include <cstdint>
#include <vector>

namespace fastinfer::engine {

// Made by step `first`, read last by step `last`.
struct Lifetime {
  int64_t bytes;
  int64_t first, last;
};

struct ArenaPlan {
  std::vector<int64_t> offsets;  // of each lifetime
  int64_t bytes;                 // of the whole
  int64_t lower_bound;           // the most that is alive at one step
};

ArenaPlan plan_arena(const std::vector<Lifetime>& lifetimes);

}  // namespace fastinfer::engine
