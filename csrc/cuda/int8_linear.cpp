// int8_linear and int8_linear_dynamic.
#include "dynamic_rows.h"
#include "ops.h"
#include "packed_headers.h"

namespace fastinfer::cuda {
namespace {

// The result's shape.
std::vector<int64_t> check_linear(const char* op, const Tensor& x, const PackedHeader& h,
                                  int64_t out_features) {
  STD_TORCH_CHECK(x.dim() >= 1 && x.sizes()[x.dim() - 1] == h.k, op, ": expected x [*, ", h.k,
                  "] (weight has in_features=", h.k, "), got ", shape_text(x));
  STD_TORCH_CHECK(out_features == h.n, op, ": expected out_features=", h.n,
                  " as packed, got ", out_features);
  std::vector<int64_t> shape = sizes_of(x);
  shape.back() = h.n;
  return shape;
}

int64_t checked_rows(const char* op, const Tensor& x, const PackedHeader& h) {
  const int64_t m = x.numel() / h.k;
  STD_TORCH_CHECK(m < (int64_t{1} << 31), op, ": expected fewer than 2^31 rows, got ", m,
                  "; split x");
  return m;
}

void run_linear(const char* op, GemmCall& call, const Tensor& x, int64_t m, const PackedHeader& h,
                const DeviceScope& scope) {
  call.x = static_cast<const uint8_t*>(x.const_data_ptr());
  call.m = m;
  call.windows = {1, 1, h.k, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1};
  run_gemm(op, call, scope);
}

}  // namespace

Tensor int8_linear_cuda(Tensor x, Tensor packed, std::optional<Tensor> residual,
                        int64_t out_features, bool float_output) {
  constexpr const char* kOp = "int8_linear";
  check_dtype(kOp, "x", x, ScalarType::Byte);
  const DeviceScope scope(kOp, "x", x);
  const PackedHeader h = checked_header(kOp, packed, PackedOp::kLinear, float_output, scope);
  const std::vector<int64_t> shape = check_linear(kOp, x, h, out_features);
  check_residual(kOp, h, residual, shape, scope);
  const ScalarType dtype = float_output ? ScalarType::Float : ScalarType::Byte;
  Tensor out = scope.empty(shape, dtype);
  const int64_t m = checked_rows(kOp, x, h);
  if (m == 0) return out;
  x = as_contiguous(x);
  if (residual) residual = as_contiguous(*residual);
  GemmCall call = bind_call(h, packed, residual, out, scope);
  run_linear(kOp, call, x, m, h, scope);
  return out;
}

Tensor int8_linear_dynamic_cuda(Tensor x, Tensor packed, int64_t out_features, bool per_token) {
  constexpr const char* kOp = "int8_linear_dynamic";
  check_dtype(kOp, "x", x, ScalarType::Float);
  const DeviceScope scope(kOp, "x", x);
  const PackedHeader h = checked_header(kOp, packed, PackedOp::kLinear, true, scope, true);
  Tensor out = scope.empty(check_linear(kOp, x, h, out_features), ScalarType::Float);
  const int64_t m = checked_rows(kOp, x, h);
  if (m == 0) return out;
  x = as_contiguous(x);
  const int64_t ranges = per_token ? m : 1;
  const QuantizedRows rows{scope.empty({m, h.k}, ScalarType::Byte),
                           scope.empty({ranges}, ScalarType::Float),
                           scope.empty({ranges}, ScalarType::Int)};
  quantize_ranges(kOp, scope, x, ranges, rows, per_token);
  GemmCall call = bind_call(h, packed, std::nullopt, out, scope);
  bind_ranges(call, rows, m / ranges);
  run_linear(kOp, call, rows.q, m, h, scope);
  return out;
}

}  // namespace fastinfer::cuda
