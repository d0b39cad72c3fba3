// Which form and panel width a weight is packed in.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "kernel_table.h"

namespace fastinfer {

// weight: [n][k] with k in memory order of the activations. Returns the panel [quad][nr][4] of a header
// whose form and width are set.
std::vector<int8_t> gather_panel(const int8_t* weight, const PackedHeader& h, int64_t group,
                                 int64_t panel);

// Sets form, nr, panels_per_group and run to what takes the least time by estimate. Returns the
// header of a second, sparse image where calls of few rows are faster on that, and sets h.pixels to
// the most rows.
std::optional<PackedHeader> choose_family(const KernelTable& table, const int8_t* weight,
                                          PackedHeader& h);

}  // namespace fastinfer
