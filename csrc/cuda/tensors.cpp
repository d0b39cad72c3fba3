#include "tensors.h"

#include <algorithm>

#include "device.h"

// The shim declares it for builds with torch's own flag for CUDA only.
extern "C" AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device_index, void** stream);

namespace fastinfer::cuda {
namespace {

std::string device_text(const Tensor& t) {
  if (t.is_cuda()) return "cuda:" + std::to_string(t.get_device_index());
  return t.is_cpu() ? "cpu" : "another device";
}

int32_t checked_device(const char* op, const char* argument, const Tensor& t) {
  STD_TORCH_CHECK(t.is_cuda(), op, ": expected ", argument,
                  " on the GPU as the other tensors, got one on ", device_text(t));
  return t.get_device_index();
}

bool is_nhwc(const Tensor& t) {
  int64_t expected = 1;
  for (const int64_t d : {1, 3, 2, 0}) {
    if (t.sizes()[d] != 1 && t.stride(d) != expected) return false;
    expected *= t.sizes()[d];
  }
  return true;
}

}  // namespace

DeviceScope::DeviceScope(const char* op, const char* argument, const Tensor& t)
    : device_(checked_device(op, argument, t)), guard_(device_) {
  check_shim(aoti_torch_get_current_cuda_stream(device_, &stream_));
}

void DeviceScope::check(const char* op, const char* argument, const Tensor& t) const {
  STD_TORCH_CHECK(t.is_cuda() && t.get_device_index() == device_, op, ": expected ", argument,
                  " on cuda:", device_, " as x, got one on ", device_text(t));
}

Tensor DeviceScope::empty(const std::vector<int64_t>& sizes, ScalarType dtype) const {
  std::vector<int64_t> strides(sizes.size());
  int64_t stride = 1;
  for (size_t i = sizes.size(); i-- > 0;) {
    strides[i] = stride;
    stride *= std::max<int64_t>(sizes[i], 1);
  }
  return empty_strided(sizes, strides, dtype, aoti_torch_device_type_cuda(), device_);
}

Tensor DeviceScope::empty_nhwc(const std::vector<int64_t>& sizes, ScalarType dtype) const {
  const int64_t c = std::max<int64_t>(sizes[1], 1), h = std::max<int64_t>(sizes[2], 1);
  const int64_t w = std::max<int64_t>(sizes[3], 1);
  return empty_strided(sizes, {h * w * c, 1, w * c, c}, dtype, aoti_torch_device_type_cuda(),
                       device_);
}

void check_launch(const char* op, int error) {
  STD_TORCH_CHECK(error == 0, op, ": the kernel did not start: ", error_text(error));
}

Tensor as_nhwc(const Tensor& t) {
  if (t.numel() == 0 || is_nhwc(t)) return t;
  return torch::stable::contiguous(t, torch::headeronly::MemoryFormat::ChannelsLast);
}

bool is_channels_last(const Tensor& t) {
  return t.dim() == 4 && !t.is_contiguous() && is_nhwc(t);
}

}  // namespace fastinfer::cuda
