// sparse_float_linear, sparse_float_conv2d: float layers whose weights are mostly zero.
#include <algorithm>

#include "../op_checks.h"
#include "ops.h"
#include "parallel.h"
#include "sparse_float_driver.h"

namespace fastinfer {
namespace {

SparseFloatWeight view(const char* op, const Tensor& values, const Tensor& places,
                       const Tensor& starts, const std::optional<Tensor>& bias, int64_t outputs,
                       int64_t inputs, int64_t groups, double clamp_min, double clamp_max) {
  SparseFloatWeight weight{};
  weight.outputs = outputs / groups;
  weight.inputs = inputs;
  weight.groups = groups;
  weight.entries = values.numel();
  weight.clamp_min = static_cast<float>(clamp_min);
  weight.clamp_max = static_cast<float>(clamp_max);
  check_vector(op, "values", values, ScalarType::Float, values.numel());
  check_vector(op, "places", places, ScalarType::Byte, values.numel());
  check_vector(op, "starts", starts, ScalarType::Int, weight.steps() * outputs + 1);
  for (const Tensor* t : {&values, &places, &starts}) {
    STD_TORCH_CHECK(t->is_contiguous(), op, ": expected values, places and starts contiguous");
  }
  if (bias) {
    check_vector(op, "bias", *bias, ScalarType::Float, outputs);
    weight.bias = static_cast<const float*>(bias->const_data_ptr());
  }
  weight.values = static_cast<const float*>(values.const_data_ptr());
  weight.places = static_cast<const uint8_t*>(places.const_data_ptr());
  weight.starts = static_cast<const int32_t*>(starts.const_data_ptr());
  return weight;
}

// The floats of a residual, which is contiguous from here on.
const float* residual_of(const char* op, std::optional<Tensor>& residual, const Tensor& out) {
  check_dtype(op, "residual", *residual, ScalarType::Float);
  STD_TORCH_CHECK(sizes_of(*residual) == sizes_of(out), op, ": expected residual ", shape_text(out),
                  ", got ", shape_text(*residual));
  residual = as_contiguous(*residual);
  return static_cast<const float*>(residual->const_data_ptr());
}

void run(SparseFloatDriver driver) {
  driver.split_for(useful_threads(driver.work(), torch::stable::get_num_threads()));
  run_driver(driver);
}

}  // namespace

Tensor sparse_float_linear_cpu(Tensor x, Tensor values, Tensor places, Tensor starts,
                               std::optional<Tensor> bias, std::optional<Tensor> residual,
                               std::vector<int64_t> weight_shape, double clamp_min,
                               double clamp_max) {
  constexpr const char* kOp = "sparse_float_linear";
  check_dtype(kOp, "x", x, ScalarType::Float);
  STD_TORCH_CHECK(weight_shape.size() == 2 && weight_shape[0] > 0 && weight_shape[1] > 0, kOp,
                  ": expected weight_shape [N, K] of sizes >= 1, got ", weight_shape.size(),
                  " sizes");
  const int64_t outputs = weight_shape[0], inputs = weight_shape[1];
  STD_TORCH_CHECK(x.dim() > 0 && x.sizes()[static_cast<size_t>(x.dim() - 1)] == inputs, kOp,
                  ": expected x [*, ", inputs, "] (weight has in_features=", inputs, "), got ",
                  shape_text(x));
  if (bias) bias = as_contiguous(*bias);
  SparseFloatWeight weight =
      view(kOp, values, places, starts, bias, outputs, inputs, 1, clamp_min, clamp_max);
  std::vector<int64_t> shape = sizes_of(x);
  shape.back() = outputs;
  Tensor out = empty_contiguous(shape, ScalarType::Float);
  if (residual) weight.residual = residual_of(kOp, residual, out);
  if (out.numel() == 0) return out;
  x = as_contiguous(x);
  run(SparseFloatDriver(current_table(), weight, static_cast<const float*>(x.const_data_ptr()),
                        x.numel() / inputs, static_cast<float*>(out.mutable_data_ptr())));
  return out;
}

Tensor sparse_float_conv2d_cpu(Tensor x, Tensor values, Tensor places, Tensor starts,
                               std::optional<Tensor> bias, std::optional<Tensor> residual,
                               std::vector<int64_t> weight_shape, std::vector<int64_t> stride,
                               std::vector<int64_t> padding, std::vector<int64_t> dilation,
                               int64_t groups, double clamp_min, double clamp_max) {
  constexpr const char* kOp = "sparse_float_conv2d";
  check_dtype(kOp, "x", x, ScalarType::Float);
  STD_TORCH_CHECK(
      weight_shape.size() == 4 && *std::min_element(weight_shape.begin(), weight_shape.end()) > 0,
      kOp, ": expected weight_shape [N, C / groups, kh, kw] of sizes >= 1, got ",
      weight_shape.size(), " sizes");
  check_pair(kOp, "stride", stride, 1);
  check_pair(kOp, "padding", padding, 0);
  check_pair(kOp, "dilation", dilation, 1);
  const int64_t outputs = weight_shape[0], channels = weight_shape[1];
  STD_TORCH_CHECK(groups >= 1 && outputs % groups == 0, kOp, ": expected groups that divide ",
                  outputs, ", got ", groups);
  STD_TORCH_CHECK(x.dim() == 4 && x.sizes()[1] == channels * groups, kOp, ": expected x [N, ",
                  channels * groups, ", H, W] (weight has in_channels=", channels * groups,
                  "), got ", shape_text(x));
  ConvGeometry g{};
  g.batch = x.sizes()[0];
  g.channels = channels * groups;
  g.height = x.sizes()[2];
  g.width = x.sizes()[3];
  g.out_channels = outputs;
  g.kh = weight_shape[2];
  g.kw = weight_shape[3];
  g.stride_h = height_of(stride);
  g.stride_w = width_of(stride);
  g.pad_h = height_of(padding);
  g.pad_w = width_of(padding);
  g.dilation_h = height_of(dilation);
  g.dilation_w = width_of(dilation);
  STD_TORCH_CHECK(g.set_out_size(), kOp, ": expected x at least as large as the kernel of [", g.kh,
                  ", ", g.kw, "] with its dilation, less padding, got ", shape_text(x));
  if (bias) bias = as_contiguous(*bias);
  SparseFloatWeight weight = view(kOp, values, places, starts, bias, outputs,
                                  channels * g.kh * g.kw, groups, clamp_min, clamp_max);
  Tensor out = empty_contiguous({g.batch, outputs, g.out_height, g.out_width}, ScalarType::Float);
  if (residual) weight.residual = residual_of(kOp, residual, out);
  if (out.numel() == 0) return out;
  x = as_contiguous(x);
  const ImagePlanes image(g, groups);
  const auto* from = static_cast<const float*>(x.const_data_ptr());
  std::optional<Tensor> copy;
  if (image.is_copied()) {
    copy = empty_contiguous({image.floats()}, ScalarType::Float);
    auto* to = static_cast<float*>(copy->mutable_data_ptr());
    const Work work = image.work();
    const int threads = threads_for(work.cost, work.parts);
    split_range(threads, threads, [&](int64_t t0, int64_t t1) {
      for (int64_t t = t0; t < t1; t++) image.run_part(from, to, static_cast<int>(t), threads);
    });
    from = to;
  }
  const FloatPlanes planes = image.planes(from);
  run(SparseFloatDriver(current_table(), weight, planes,
                        static_cast<float*>(out.mutable_data_ptr())));
  return out;
}

}  // namespace fastinfer
