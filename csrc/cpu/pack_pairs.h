// Weights of one panel as entries a saturating 16-bit multiply cannot get wrong.
#pragma once

#include <cstdint>
#include <vector>

namespace fastinfer {

struct PairedPanel {
  std::vector<int8_t> weight;    // [entry][nr][4]; pairs first, then singles
  std::vector<int32_t> offsets;  // byte offset of each entry's activations in a row
  int pairs = 0;
  int singles = 0;
};

// panel: [k_groups][nr][4]. All-zero groups vanish.
PairedPanel pack_pairs(const int8_t* panel, int k_groups, int nr);

}  // namespace fastinfer
