// A tensor of a plan. Torch-free.
#pragma once

#include <cstdint>
#include <vector>

namespace fastinfer::engine {

enum class Dtype : int64_t { kUint8, kFloat };

// Values of 4 dimensions are [N, C, H, W] in NHWC memory, others row-major; all without gaps, but for
// images that are channels of wider ones or have gaps between pixels (see Place).
struct Value {
  Dtype dtype = Dtype::kUint8;
  std::vector<int64_t> shape;
  bool is_planar = false;  // of 4 dimensions in NCHW memory: an input, or what a step made so
  // Elements from one index of each dimension to the next, where they lie in yet another order: in this one a step
  // made them, or this is a view of another value; then not planar. Empty: as said above.
  std::vector<int64_t> strides = {};

  bool operator==(const Value&) const = default;
  int64_t elements() const {
    int64_t n = 1;
    for (int64_t size : shape) n *= size;
    return n;
  }
  int64_t bytes() const { return elements() * (dtype == Dtype::kFloat ? 4 : 1); }
};

// Where a value's bytes lie: in memory of its own, as channels from `first` on of a wider image, its owner,
// or where an operand lay that was read for the last time. An owner is its own. gap: unused bytes after each of an owner's pixels.
// is_view: it is elements of the owner by its own shape and strides, from byte `first` on, not channels.
struct Place {
  int64_t owner, first, gap = 0;
  bool is_view = false;
};

// Where the values of one call are: index is the value.
using Frame = std::vector<uint8_t*>;

}  // namespace fastinfer::engine
