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
  bool is_planar = false;  // a 4-D input, or what kFloatUpsample2d makes, in NCHW memory

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
struct Place {
  int64_t owner, first, gap = 0;
};

// Where the values of one call are: index is the value.
using Frame = std::vector<uint8_t*>;

}  // namespace fastinfer::engine
