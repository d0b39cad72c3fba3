// Uniform argument checks: op, argument, what was wanted, what came.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace fastinfer {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline std::string shape_text(const Tensor& t) {
  std::string text = "[";
  for (int64_t i = 0; i < t.dim(); i++) {
    text += (i ? ", " : "") + std::to_string(t.sizes()[i]);
  }
  return text + "]";
}

inline void check_dtype(const char* op, const char* argument, const Tensor& t, ScalarType want) {
  STD_TORCH_CHECK(t.scalar_type() == want, op, ": expected ", argument, " ",
                  torch::headeronly::toString(want), ", got ",
                  torch::headeronly::toString(t.scalar_type()));
}

inline void check_any_float(const char* op, const char* argument, const Tensor& t) {
  const ScalarType type = t.scalar_type();
  STD_TORCH_CHECK(type == ScalarType::Float || type == ScalarType::Half ||
                      type == ScalarType::BFloat16,
                  op, ": expected ", argument, " Float, Half or BFloat16, got ",
                  torch::headeronly::toString(type));
}

inline void check_vector(const char* op, const char* argument, const Tensor& t, ScalarType want,
                         int64_t n) {
  check_dtype(op, argument, t, want);
  STD_TORCH_CHECK(t.dim() == 1 && t.sizes()[0] == n, op, ": expected ", argument, " [", n,
                  "], got ", shape_text(t));
}

inline void check_zero_point(const char* op, const char* argument, int64_t zero_point) {
  STD_TORCH_CHECK(zero_point >= 0 && zero_point <= 255, op, ": expected ", argument,
                  " in 0..255, got ", zero_point);
}

// torch's own macro for this has another name in 2.11 than in 2.14.
inline void check_shim(AOTITorchError code) {
  STD_TORCH_CHECK(code == AOTI_TORCH_SUCCESS, "a call into torch failed");
}

inline Tensor empty_strided(const std::vector<int64_t>& sizes, const std::vector<int64_t>& strides,
                            ScalarType dtype,
                            int32_t device_type = aoti_torch_device_type_cpu(),
                            int32_t device_index = 0) {
  AtenTensorHandle handle;
  const int32_t type = dtype == ScalarType::Byte    ? aoti_torch_dtype_uint8()
                       : dtype == ScalarType::Float ? aoti_torch_dtype_float32()
                       : dtype == ScalarType::Char  ? aoti_torch_dtype_int8()
                                                    : aoti_torch_dtype_int32();
  check_shim(aoti_torch_empty_strided(static_cast<int64_t>(sizes.size()), sizes.data(),
                                      strides.data(), type, device_type, device_index, &handle));
  return Tensor(handle);
}

inline Tensor empty_contiguous(const std::vector<int64_t>& sizes, ScalarType dtype) {
  std::vector<int64_t> strides(sizes.size());
  int64_t stride = 1;
  for (size_t i = sizes.size(); i-- > 0;) {
    strides[i] = stride;
    stride *= sizes[i] > 0 ? sizes[i] : 1;
  }
  return empty_strided(sizes, strides, dtype);
}

inline std::vector<int64_t> sizes_of(const Tensor& t) {
  return {t.sizes().begin(), t.sizes().end()};
}

inline Tensor as_contiguous(const Tensor& t) {
  return t.is_contiguous() ? t : torch::stable::contiguous(t);
}

}  // namespace fastinfer
