// Regions whose packed buffers and program the engine keeps, so that a call names them by a number.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "../engine/step.h"
#include "../tensor_check.h"

namespace fastinfer {

struct BoundRegion {
  std::vector<Tensor> packed;
  std::string program;
  std::vector<engine::Weight> weights;  // as `packed` lay when it was bound
};

// Numbers are not used twice.
int64_t bind_region(BoundRegion region);

// Throws std::invalid_argument where the number is no region's, or no longer.
std::shared_ptr<const BoundRegion> bound_region(int64_t number);

// Calls that run go on.
void release_region(int64_t number);

}  // namespace fastinfer
