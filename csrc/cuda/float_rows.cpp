// float_layer_norm, float_softmax.
#include "float_rows.h"

#include "../op_checks.h"
#include "ops.h"
#include "tensors.h"

namespace fastinfer::cuda {
namespace {

// x with the elements of a row side by side.
Tensor as_rows(const char* op, const Tensor& x, int64_t dim) {
  return check_rows(op, x, dim) ? as_nhwc(x) : as_contiguous(x);
}

// The elements of a row, which kernels count in 32 bits.
int64_t row_length(const char* op, const Tensor& x, int64_t dim) {
  const int64_t n = x.sizes()[static_cast<size_t>(dim)];
  constexpr int64_t kMost = (int64_t{1} << 31) - 64;
  STD_TORCH_CHECK(n < kMost, op, ": expected rows of fewer than 2^31 - 64 elements, got ", n);
  return n;
}

Tensor result(const DeviceScope& scope, const Tensor& x, int64_t dim) {
  return x.dim() == 4 && dim == 1 ? scope.empty_nhwc(sizes_of(x), ScalarType::Float)
                                  : scope.empty(sizes_of(x), ScalarType::Float);
}

// A row's parameter, contiguous in `t`, which keeps it alive.
const float* parameter(const DeviceScope& scope, const char* name, std::optional<Tensor>& t,
                       int64_t n) {
  if (!t.has_value()) return nullptr;
  check_vector("float_layer_norm", name, *t, ScalarType::Float, n);
  scope.check("float_layer_norm", name, *t);
  t = as_contiguous(*t);
  return static_cast<const float*>(t->const_data_ptr());
}

}  // namespace

Tensor float_layer_norm_cuda(Tensor x, std::optional<Tensor> weight, std::optional<Tensor> bias,
                             double eps, int64_t dim) {
  constexpr const char* kOp = "float_layer_norm";
  const DeviceScope scope(kOp, "x", x);
  x = as_rows(kOp, x, dim);
  const int64_t n = row_length(kOp, x, dim);
  NormRows call{};
  call.weight = parameter(scope, "weight", weight, n);
  call.bias = parameter(scope, "bias", bias, n);
  Tensor out = result(scope, x, dim);
  if (x.numel() == 0) return out;
  call.x = static_cast<const float*>(x.const_data_ptr());
  call.out = static_cast<float*>(out.mutable_data_ptr());
  call.rows = x.numel() / n;
  call.n = static_cast<int32_t>(n);
  call.eps = static_cast<float>(eps);
  check_launch(kOp, launch_layer_norm(call, scope.stream()));
  return out;
}

Tensor float_softmax_cuda(Tensor x, int64_t dim) {
  constexpr const char* kOp = "float_softmax";
  const DeviceScope scope(kOp, "x", x);
  x = as_rows(kOp, x, dim);
  const int64_t n = row_length(kOp, x, dim);
  Tensor out = result(scope, x, dim);
  if (x.numel() == 0) return out;
  const SoftmaxRows call{static_cast<const float*>(x.const_data_ptr()),
                         static_cast<float*>(out.mutable_data_ptr()), x.numel() / n,
                         static_cast<int32_t>(n)};
  check_launch(kOp, launch_softmax(call, scope.stream()));
  return out;
}

}  // namespace fastinfer::cuda
