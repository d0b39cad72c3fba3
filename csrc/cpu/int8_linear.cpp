// int8_linear and int8_linear_dynamic.
#include "ops.h"
#include "packed_check.h"
#include "parallel.h"
#include "quantized_rows.h"

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
  GemmOutput output;
  output.ldc = view.header->n;
  output.out_f32 = static_cast<float*>(out.mutable_data_ptr());
  const QuantizedRow row{k};
  struct Quantized;
  uint8_t* const q = scratch<Quantized>(m * row.bytes());
  if (per_token) {
    run_driver(RowQuantizer{*view.table, from, q, m, k});
    row.bind(q, output);
    const MatrixRows matrix = row.matrix(q);
    run_driver(GemmDriver(view, matrix, m, output));
    return out;
  }
  const RangeParams range = quantize_image(*view.table, from, m * k, q);
  output.row_scale = &range.scale;
  output.row_zero_point = &range.zero_point;
  const MatrixRows matrix{q, k, k};
  run_driver(GemmDriver(view, matrix, m, output));
  return out;
}

}  // namespace fastinfer
