// Weights of one panel as the quads of products whose weight is not 0.
#pragma once

#include <cstdint>
#include <vector>

namespace fastinfer {

// Channels that pick their activations alike; a panel has one or two vectors of them.
constexpr int kPickLanes = 16;

struct SparsePanel {
  // Of each quad: which activation of the step feeds each of 16 lanes' 4 products, then for each of
  // the panel's vectors of channels the weights, all [16 lanes][4].
  std::vector<int8_t> entries;
  std::vector<uint8_t> picks;  // quads of each step: 16 at most

  int quads() const;
};

// panel: [quads][nr][4], of whole steps. Lane j of both vectors picks what either of the channels j
// and 16 + j needs.
SparsePanel pack_sparse(const int8_t* panel, int quads, int nr, int step_quads);

// The picks alone, all that an estimate needs.
std::vector<uint8_t> count_picks(const int8_t* panel, int quads, int nr, int step_quads);

}  // namespace fastinfer
