// Lengths of packed weights, by which a buffer's shape is known. No torch, no CUDA types.
//
// What the host knows of a buffer it finds by the buffer's address, and addresses are used again.
// So no two shapes have one length in a process: int8_prepack adds alignments where another shape
// has it. A buffer that has the length of the one that lay there before has its shape then, be it a
// copy of another, or written into it.
#pragma once

#include <cstdint>
#include <mutex>
#include <string>
#include <unordered_map>

#include "../packed.h"

namespace fastinfer::cuda {

// What the host reads of a header: all but its length, and values that kernels read themselves.
std::string shape_key(const PackedHeader& header);

class PackedSizes {
 public:
  // The length of buffers of this shape: `least`, or the first behind it, by whole alignments, that
  // no other shape has.
  int64_t claim(const std::string& shape, int64_t least);

  // Whether a buffer of this length that another process packed can be told from all others by it.
  bool adopt(const std::string& shape, int64_t bytes);

 private:
  std::mutex mutex_;
  std::unordered_map<int64_t, std::string> shapes_;
  std::unordered_map<std::string, int64_t> lengths_;
};

PackedSizes& packed_sizes();

}  // namespace fastinfer::cuda
