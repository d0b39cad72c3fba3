// What kinds of steps need of their operands and do to a batch. Torch-free.
#pragma once

#include <vector>

#include "program.h"
#include "value.h"

namespace fastinfer::engine {

// How a step reads an operand: wherever its elements lie, in memory without gaps in any order, dense in any layout, or
// an image in one of its two (see Value).
enum class Layout { kAny, kPacked, kDense, kPixels, kPlanes };

// Of the operand `index`.
Layout wanted_layout(const Instruction& step, size_t index);

// Whether a step wants no more of its operand `index` than its sizes.
bool reads_size(const Instruction& step, size_t index);

// Whether a sample of the result, of `batch` in order, depends on more than that sample of the operands.
bool mixes_samples(const Instruction& step, const std::vector<Value>& values, int64_t batch);

}  // namespace fastinfer::engine
