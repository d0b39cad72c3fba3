// Tensors of one device: where an op runs, new results, memory formats.
#pragma once

#include <torch/csrc/stable/accelerator.h>

#include "../tensor_check.h"

namespace fastinfer::cuda {

// The device and current stream of an op's first argument, current until the end of the scope.
class DeviceScope {
 public:
  DeviceScope(const char* op, const char* argument, const Tensor& t);
  void* stream() const { return stream_; }
  int32_t device() const { return device_; }
  // Every tensor of a call is on one device.
  void check(const char* op, const char* argument, const Tensor& t) const;
  Tensor empty(const std::vector<int64_t>& sizes, ScalarType dtype) const;
  // [N, C, H, W] with NHWC memory.
  Tensor empty_nhwc(const std::vector<int64_t>& sizes, ScalarType dtype) const;

 private:
  int32_t device_;
  torch::stable::accelerator::DeviceGuard guard_;
  void* stream_ = nullptr;
};

// Throws unless a launcher's result is 0.
void check_launch(const char* op, int error);

// t itself when its memory is NHWC by the strides that matter, or a copy that is.
Tensor as_nhwc(const Tensor& t);

// Whether results keep t's NHWC memory: any t that is 4-D and not contiguous too.
bool is_channels_last(const Tensor& t);

}  // namespace fastinfer::cuda
