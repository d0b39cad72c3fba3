// Values that are other values read in another order. Torch-free.
#pragma once

#include <optional>

#include "nest.h"
#include "step.h"

namespace fastinfer::engine {

// Drops strides that say no more than a layout does.
void simplify(Value& value);

// Whether a value's elements fill memory without gaps, in whatever order.
bool is_packed(const Value& value);

// A dense value of x's type in the layout nearest to that of x, of this shape.
Value dense_like(const Value& x, Sizes shape);

// What a step makes of x without moving an element: a value, and how many bytes behind x's it begins. None: it has to
// copy.
struct View {
  Value value;
  int64_t first;
};
std::optional<View> view_of(const Instruction& step, const Context& context);

// A reshape's result, dense in rows.
Value reshaped(const Instruction& step, const Context& context);

// The indices of a strided_slice.
struct Indices {
  size_t dim;
  int64_t first, count, step;
};
Indices sliced(const Instruction& step, const Value& x);

// The dimension that a step names.
size_t dimension(const char* step, const Value& x, int64_t dim);

}  // namespace fastinfer::engine
