// float_layer_norm, float_softmax, float_global_avg_pool2d.
#include "../op_checks.h"
#include "conv_geometry.h"
#include "ops.h"
#include "parallel.h"
#include "row_work.h"

namespace fastinfer {
namespace {

// x with the elements of a row side by side.
Tensor as_rows(const char* op, const Tensor& x, int64_t dim) {
  return check_rows(op, x, dim) ? as_nhwc(x) : as_contiguous(x);
}

Tensor result(const Tensor& x, int64_t dim) {
  return x.dim() == 4 && dim == 1 ? empty_nhwc(sizes_of(x), ScalarType::Float)
                                  : empty_contiguous(sizes_of(x), ScalarType::Float);
}

const float* parameter(const char* name, const std::optional<Tensor>& t, int64_t n) {
  if (!t.has_value()) return nullptr;
  check_vector("float_layer_norm", name, *t, ScalarType::Float, n);
  return static_cast<const float*>(t->const_data_ptr());
}

// run(first row, rows) for every thread's share of the rows.
template <class F>
void for_rows(int64_t elements, int64_t n, const F& run) {
  if (elements == 0) return;
  const Work work = row_work(elements, n);
  split_range(work.parts, threads_for(work.cost, work.parts),
              [&](int64_t begin, int64_t end) { run(begin, end - begin); });
}

}  // namespace

Tensor float_layer_norm_cpu(Tensor x, std::optional<Tensor> weight, std::optional<Tensor> bias,
                            double eps, int64_t dim) {
  x = as_rows("float_layer_norm", x, dim);
  const int64_t n = x.sizes()[static_cast<size_t>(dim)];
  if (weight.has_value()) weight = as_contiguous(*weight);
  if (bias.has_value()) bias = as_contiguous(*bias);
  NormRows norm{};
  norm.n = n;
  norm.weight = parameter("weight", weight, n);
  norm.bias = parameter("bias", bias, n);
  norm.eps = static_cast<float>(eps);
  Tensor out = result(x, dim);
  const auto* from = static_cast<const float*>(x.const_data_ptr());
  auto* to = static_cast<float*>(out.mutable_data_ptr());
  const KernelTable& table = current_table();
  for_rows(x.numel(), n, [&](int64_t row, int64_t rows) {
    NormRows part = norm;
    part.x = from + row * n;
    part.out = to + row * n;
    part.rows = rows;
    table.layer_norm(part);
  });
  return out;
}

Tensor float_softmax_cpu(Tensor x, int64_t dim) {
  x = as_rows("float_softmax", x, dim);
  const int64_t n = x.sizes()[static_cast<size_t>(dim)];
  Tensor out = result(x, dim);
  const auto* from = static_cast<const float*>(x.const_data_ptr());
  auto* to = static_cast<float*>(out.mutable_data_ptr());
  const KernelTable& table = current_table();
  for_rows(x.numel(), n, [&](int64_t row, int64_t rows) {
    table.softmax({from + row * n, to + row * n, rows, n});
  });
  return out;
}

Tensor float_global_avg_pool2d_cpu(Tensor x) {
  constexpr const char* kOp = "float_global_avg_pool2d";
  STD_TORCH_CHECK(x.scalar_type() == ScalarType::Float && x.dim() == 4, kOp,
                  ": expected x float32 [N, C, H, W], got ",
                  torch::headeronly::toString(x.scalar_type()), " ", shape_text(x));
  x = as_nhwc(x);
  const auto sizes = x.sizes();
  Tensor out = empty_nhwc({sizes[0], sizes[1], 1, 1}, ScalarType::Float);
  if (out.numel() == 0) return out;
  run_driver(ChannelMeanDriver{current_table(), static_cast<const float*>(x.const_data_ptr()),
                               static_cast<float*>(out.mutable_data_ptr()), sizes[0], sizes[1],
                               sizes[2] * sizes[3]});
  return out;
}

}  // namespace fastinfer
