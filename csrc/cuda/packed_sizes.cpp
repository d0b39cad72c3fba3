#include "packed_sizes.h"

namespace fastinfer::cuda {

std::string shape_key(const PackedHeader& header) {
  PackedHeader shape = header;
  shape.x_zero_point = shape.out_zero_point = shape.qmin = shape.qmax = 0;
  shape.clamp_min = shape.clamp_max = 0;
  shape.flags &= ~(kFlagUnbounded | kFlagSmall);
  shape.total_bytes = 0;
  return {reinterpret_cast<const char*>(&shape), sizeof(shape)};
}

int64_t PackedSizes::claim(const std::string& shape, int64_t least) {
  const std::lock_guard lock(mutex_);
  const auto known = lengths_.find(shape);
  if (known != lengths_.end()) return known->second;
  int64_t bytes = least;
  while (shapes_.count(bytes) != 0) bytes += kSectionAlign;
  shapes_[bytes] = shape;
  lengths_[shape] = bytes;
  return bytes;
}

bool PackedSizes::adopt(const std::string& shape, int64_t bytes) {
  const std::lock_guard lock(mutex_);
  const auto [place, is_new] = shapes_.try_emplace(bytes, shape);
  if (is_new) lengths_.try_emplace(shape, bytes);
  return place->second == shape;
}

PackedSizes& packed_sizes() {
  static PackedSizes instance;
  return instance;
}

}  // namespace fastinfer::cuda
