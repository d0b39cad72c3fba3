// int8_linear and int8_linear_dynamic.
#include "ops.h"
#include "packed_check.h"
#include "parallel.h"
#include "range.h"

namespace fastinfer {
namespace {

std::vector<int64_t> check_linear(const char* op, const Tensor& x, const PackedView& view,
                                  int64_t out_features) {
  const PackedHeader& h = *view.header;
  STD_TORCH_CHECK(x.dim() >= 1 && x.sizes()[x.dim() - 1] == h.k, op, ": expected x [*, ", h.k,
                  "] (weight has in_features=", h.k, "), got ", shape_text(x));
  STD_TORCH_CHECK(out_features == h.n, op, ": expected out_features=", h.n,
                  " as packed, got ", out_features);
  std::vector<int64_t> shape = sizes_of(x);
  shape.back() = h.n;
  return shape;
}

}  // namespace

Tensor int8_linear_cpu(Tensor x, Tensor packed, std::optional<Tensor> residual,
                       int64_t out_features, bool float_output) {
  constexpr const char* kOp = "int8_linear";
  check_dtype(kOp, "x", x, ScalarType::Byte);
  const PackedView view = view_packed(kOp, packed, PackedOp::kLinear, false, float_output);
  const std::vector<int64_t> shape = check_linear(kOp, x, view, out_features);
  check_residual(kOp, view, residual, shape);
  x = as_contiguous(x);
  Tensor out = empty_contiguous(shape, float_output ? ScalarType::Float : ScalarType::Byte);
  const MatrixRows rows{static_cast<const uint8_t*>(x.const_data_ptr()), view.header->k,
                        view.header->k};
  if (residual) residual = as_contiguous(*residual);
  const GemmOutput output = bind_output(out, residual, float_output, view.header->n);
  run_driver(GemmDriver(view, rows, x.numel() / view.header->k, output));
  return out;
}

Tensor int8_linear_dynamic_cpu(Tensor x, Tensor packed, int64_t out_features, bool per_token) {
  constexpr const char* kOp = "int8_linear_dynamic";
  check_dtype(kOp, "x", x, ScalarType::Float);
  const PackedView view = view_packed(kOp, packed, PackedOp::kLinear, true, true);
  const std::vector<int64_t> shape = check_linear(kOp, x, view, out_features);
  x = as_contiguous(x);
  const int64_t k = view.header->k, m = x.numel() / k;
  Tensor out = empty_contiguous(shape, ScalarType::Float);
  if (m == 0) return out;
  const auto* from = static_cast<const float*>(x.const_data_ptr());
  const int64_t rows = per_token ? m : 1, columns = per_token ? k : m * k;
  std::vector<float> scale(static_cast<size_t>(rows));
  std::vector<int32_t> zero_point(static_cast<size_t>(rows));
  struct Quantized;
  uint8_t* q = scratch<Quantized>(m * k);
  split_range(rows, threads_for(m * k * kMoveWork, rows), [&](int64_t r0, int64_t r1) {
    for (int64_t r = r0; r < r1; r++) {
      const RangeParams range =
          quantize_row(*view.table, from + r * columns, columns, q + r * columns);
      scale[static_cast<size_t>(r)] = range.scale;
      zero_point[static_cast<size_t>(r)] = range.zero_point;
    }
  });
  GemmOutput output;
  output.ldc = view.header->n;
  output.out_f32 = static_cast<float*>(out.mutable_data_ptr());
  output.row_scale = scale.data();
  output.row_zero_point = zero_point.data();
  output.row_step = per_token ? 1 : 0;
  const MatrixRows matrix{q, k, k};
  run_driver(GemmDriver(view, matrix, m, output));
  return out;
}

}  // namespace fastinfer
