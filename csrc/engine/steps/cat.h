// int8_cat as a program has it. Torch-free.
#pragma once

#include <vector>

#include "../../cpu/pointwise_driver.h"
#include "../step.h"

namespace fastinfer::engine {

struct CatOperands {
  size_t dim;
  std::vector<CatPart> parts;  // their maps; the rest is to be set
};

// Throws std::invalid_argument where numbers are missing.
CatOperands read_cat(const Instruction& instruction);

// Where channels are, and what is joined.
inline bool joins_channels(const CatOperands& cat, const Value& part) {
  return cat.dim == 1 && part.shape.size() == 4;
}

}  // namespace fastinfer::engine
