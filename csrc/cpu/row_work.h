// What layer norm or softmax of rows costs. Torch-free.
#pragma once

#include "work.h"

namespace fastinfer {

// elements: of all rows; n > 0: of one. A row is one thread's.
inline Work row_work(int64_t elements, int64_t n) {
  // Three passes; an exponential is some twenty operations on a vector.
  return {elements * 4 * kMoveWork, elements / n};
}

}  // namespace fastinfer
