// quantize_dynamic, and what dynamic products share with it.
#include "device.h"
#include "dynamic_rows.h"
#include "ops.h"
#include "quantize_rows.h"

namespace fastinfer::cuda {
namespace {

RangeCall range_call(const Tensor& x, int64_t rows, const QuantizedRows& to) {
  RangeCall call{};
  call.x = static_cast<const float*>(x.const_data_ptr());
  call.out = static_cast<uint8_t*>(to.q.mutable_data_ptr());
  call.scale = static_cast<float*>(to.scale.mutable_data_ptr());
  call.zero_point = static_cast<int32_t*>(to.zero_point.mutable_data_ptr());
  call.rows = rows;
  call.n = rows == 0 ? 0 : x.numel() / rows;
  return call;
}

// Bounds of all shares of the rows, then codes.
void run_split(const char* op, const DeviceScope& scope, RangeCall& call) {
  call.splits = range_splits(call.rows, call.n, device_facts(scope.device()).multiprocessors);
  STD_TORCH_CHECK(call.rows * call.splits < (int64_t{1} << 31), op,
                  ": expected fewer than 2^31 rows, got ", call.rows, "; split x");
  const Tensor bounds = scope.empty({call.rows, call.splits, 2}, ScalarType::Float);
  call.bounds = static_cast<float*>(bounds.mutable_data_ptr());
  check_launch(op, launch_find_bounds(call, scope.stream()));
  check_launch(op, launch_quantize_split(call, scope.stream()));
}

}  // namespace

void quantize_ranges(const char* op, const DeviceScope& scope, const Tensor& x, int64_t rows,
                     const QuantizedRows& to, bool many_short_rows) {
  if (rows == 0) return;
  RangeCall call = range_call(x, rows, to);
  if (!many_short_rows) {
    run_split(op, scope, call);
    return;
  }
  STD_TORCH_CHECK(rows < (int64_t{1} << 31), op, ": expected fewer than 2^31 rows, got ", rows,
                  "; split x");
  check_launch(op, launch_quantize_rows(call, scope.stream()));
}

QuantizedRows quantize_images(const char* op, const DeviceScope& scope, const Tensor& x,
                              int64_t pad_h, int64_t pad_w) {
  const int64_t images = x.sizes()[0], channels = x.sizes()[1];
  const int64_t height = x.sizes()[2] + 2 * pad_h, width = x.sizes()[3] + 2 * pad_w;
  constexpr int64_t kMostPad = int64_t{1} << 28;
  STD_TORCH_CHECK(pad_h < kMostPad && pad_w < kMostPad &&
                      channels * height * width < (int64_t{1} << 31), op,
                  ": expected padded images of fewer than 2^31 values, got ", shape_text(x));
  QuantizedRows to{scope.empty_nhwc({images, channels, height, width}, ScalarType::Byte),
                   scope.empty({images}, ScalarType::Float),
                   scope.empty({images}, ScalarType::Int)};
  if (images == 0) return to;
  RangeCall call = range_call(x, images, to);
  if (pad_h != 0 || pad_w != 0) {
    call.height = static_cast<int32_t>(x.sizes()[2]);
    call.width = static_cast<int32_t>(x.sizes()[3]);
    call.channels = static_cast<int32_t>(channels);
    call.pad_h = static_cast<int32_t>(pad_h);
    call.pad_w = static_cast<int32_t>(pad_w);
  }
  run_split(op, scope, call);
  return to;
}

void bind_ranges(GemmCall& call, const QuantizedRows& rows, int64_t rows_per_range) {
  call.row_scale = static_cast<const float*>(rows.scale.const_data_ptr());
  call.row_zero_point = static_cast<const int32_t*>(rows.zero_point.const_data_ptr());
  call.rows_per_range = static_cast<uint32_t>(rows_per_range);
}

std::tuple<Tensor, Tensor, Tensor> quantize_dynamic_cuda(Tensor x, bool per_token) {
  constexpr const char* kOp = "quantize_dynamic";
  check_dtype(kOp, "x", x, ScalarType::Float);
  STD_TORCH_CHECK(!per_token || x.dim() >= 1, kOp, ": per_token: expected x [*, K], got a scalar");
  const DeviceScope scope(kOp, "x", x);
  x = as_contiguous(x);
  const std::vector<int64_t> shape = sizes_of(x);
  std::vector<int64_t> rows_shape;
  if (per_token) rows_shape.assign(shape.begin(), shape.end() - 1);
  const QuantizedRows to{scope.empty(shape, ScalarType::Byte),
                         scope.empty(rows_shape, ScalarType::Float),
                         scope.empty(rows_shape, ScalarType::Int)};
  quantize_ranges(kOp, scope, x, to.scale.numel(), to, per_token);
  return {to.q, to.scale, to.zero_point};
}

}  // namespace fastinfer::cuda
