// Results in the memory of an operand nobody reads again. Torch-free.
#pragma once

#include <vector>

#include "program.h"
#include "value.h"

namespace fastinfer::engine {

// Moves results into the memory of a residual or of what they are the sum, product or lookup of: a line of cache
// that was read for an element is the one it is written to. `places` are those of values and views of them.
void reuse_operands(std::vector<Place>& places, const std::vector<Instruction>& steps,
                    const std::vector<Value>& values, int64_t inputs,
                    const std::vector<int64_t>& outputs);

}  // namespace fastinfer::engine
