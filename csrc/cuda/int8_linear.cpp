// int8_linear.
#include "ops.h"
#include "packed_headers.h"

namespace fastinfer::cuda {

Tensor int8_linear_cuda(Tensor x, Tensor packed, std::optional<Tensor> residual,
                        int64_t out_features, bool float_output) {
  constexpr const char* kOp = "int8_linear";
  check_dtype(kOp, "x", x, ScalarType::Byte);
  const DeviceScope scope(kOp, "x", x);
  const PackedHeader h = checked_header(kOp, packed, PackedOp::kLinear, float_output, scope);
  STD_TORCH_CHECK(x.dim() >= 1 && x.sizes()[x.dim() - 1] == h.k, kOp, ": expected x [*, ", h.k,
                  "] (weight has in_features=", h.k, "), got ", shape_text(x));
  STD_TORCH_CHECK(out_features == h.n, kOp, ": expected out_features=", h.n,
                  " as packed, got ", out_features);
  std::vector<int64_t> shape = sizes_of(x);
  shape.back() = h.n;
  check_residual(kOp, h, residual, shape, scope);
  const ScalarType dtype = float_output ? ScalarType::Float : ScalarType::Byte;
  Tensor out = scope.empty(shape, dtype);
  const int64_t m = x.numel() / h.k;
  if (m == 0) return out;
  STD_TORCH_CHECK(m < (int64_t{1} << 31), kOp, ": expected fewer than 2^31 rows, got ", m,
                  "; split x");
  x = as_contiguous(x);
  if (residual) residual = as_contiguous(*residual);
  GemmCall call = bind_call(h, packed, residual, out, scope);
  call.x = static_cast<const uint8_t*>(x.const_data_ptr());
  call.m = m;
  call.windows = {1, 1, h.k, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1};
  run_gemm(kOp, call, scope);
  return out;
}

}  // namespace fastinfer::cuda
