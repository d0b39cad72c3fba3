// What packing a weight takes on every device: checked arguments, the header, a growing buffer.
#pragma once

#include "packed.h"
#include "tensor_check.h"

namespace fastinfer {

// int8_prepack's tensors; contiguous, of the right type and size after begin_prepack.
struct PrepackInputs {
  Tensor weight, bias, multiplier;
  std::optional<Tensor> residual_multiplier, table, float_bias;
};

// Checks the arguments and returns the header without layout, panels, run and sections.
PackedHeader begin_prepack(PrepackInputs& in, const std::string& op, int64_t groups,
                           int64_t x_zero_point, int64_t out_zero_point, int64_t qmin,
                           int64_t qmax, double clamp_min, double clamp_max, bool float_output,
                           bool strided);

// [n][c][kh][kw] -> [n][kh][kw][c]: the order of an NHWC window.
std::vector<int8_t> window_order(const int8_t* weight, const PackedHeader& h);

// Sections behind the room for a header; offsets stay aligned.
class PackedBuffer {
 public:
  PackedBuffer() : bytes_(kPackedHeaderBytes, 0) {}

  int64_t add(const void* data, size_t size) {
    const auto start = static_cast<int64_t>(bytes_.size());
    const auto* p = static_cast<const uint8_t*>(data);
    bytes_.insert(bytes_.end(), p, p + size);
    bytes_.resize((bytes_.size() + kSectionAlign - 1) / kSectionAlign * kSectionAlign, 0);
    return start;
  }
  template <class T>
  int64_t add(const std::vector<T>& values) {
    return add(values.data(), values.size() * sizeof(T));
  }
  // Writes the header, with the total size set, and returns the buffer as a CPU tensor.
  Tensor finish(PackedHeader& h) {
    h.total_bytes = static_cast<int64_t>(bytes_.size());
    std::memcpy(bytes_.data(), &h, sizeof(h));
    Tensor out = empty_contiguous({h.total_bytes}, ScalarType::Byte);
    std::memcpy(out.mutable_data_ptr(), bytes_.data(), bytes_.size());
    return out;
  }
  std::vector<uint8_t>& bytes() { return bytes_; }

 private:
  std::vector<uint8_t> bytes_;
};

template <class T>
const T* data_of(const std::optional<Tensor>& t) {
  return t ? static_cast<const T*>(t->const_data_ptr()) : nullptr;
}

}  // namespace fastinfer
