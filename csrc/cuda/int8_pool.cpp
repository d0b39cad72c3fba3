// int8_max_pool2d, int8_avg_pool2d, int8_adaptive_avg_pool2d.
#include "device.h"
#include "ops.h"
#include "pool.h"
#include "requantize.h"
#include "tensors.h"

namespace fastinfer::cuda {
namespace {

// Of each number of a window: places are counted in int32.
constexpr int64_t kMaxStep = int64_t{1} << 24;

void check_counted(const char* op, const char* argument, const Numbers& pair) {
  STD_TORCH_CHECK(height_of(pair) < kMaxStep && width_of(pair) < kMaxStep, op, ": expected ",
                  argument, " < 2^24, got [", height_of(pair), ", ", width_of(pair), "]");
}

void check_bytes(const char* op, const Tensor& x) {
  STD_TORCH_CHECK(x.sizes()[1] * x.sizes()[2] * x.sizes()[3] < kMostPooled, op,
                  ": expected an image of fewer than 2^31 bytes, got ", shape_text(x));
}

void check_windows(const char* op, const Tensor& x, const Numbers& kernel, const Numbers& stride,
                   const Numbers& padding, const Numbers& dilation) {
  check_pool(op, x, kernel, stride, padding, dilation);
  check_bytes(op, x);
  check_counted(op, "kernel_size", kernel);
  check_counted(op, "stride", stride);
  check_counted(op, "dilation", dilation);
}

PoolAxis axis_of(const char* op, const Tensor& x, int64_t dim, int64_t kernel, int64_t stride,
                 int64_t padding, int64_t dilation, bool ceil_mode) {
  const int64_t size = x.sizes()[dim];
  const int64_t out = pooled_size(size, kernel, stride, padding, dilation, ceil_mode);
  STD_TORCH_CHECK(out > 0, op, ": the padded input of ", shape_text(x),
                  " is smaller than the kernel");
  STD_TORCH_CHECK(dilation * (kernel - 1) < (int64_t{1} << 30), op,
                  ": expected windows of fewer than 2^30 pixels a side, got ",
                  dilation * (kernel - 1) + 1);
  const auto narrow = [](int64_t v) { return static_cast<int32_t>(v); };
  return {narrow(size),   narrow(out),     narrow(kernel),
          narrow(stride), narrow(padding), narrow(dilation)};
}

// x as NHWC and the result; kept alive until the launch.
struct Bound {
  Tensor x, out;
  PoolCall call;
};

Bound bind_pool(const char* op, const DeviceScope& scope, const Tensor& x, const PoolAxis& h,
                const PoolAxis& w) {
  const std::vector<int64_t> shape{x.sizes()[0], x.sizes()[1], h.out, w.out};
  Bound bound{x, scope.empty_nhwc(shape, ScalarType::Byte), {}};
  if (bound.out.numel() == 0) return bound;
  bound.x = as_nhwc(x);
  PoolCall& call = bound.call;
  call.x = static_cast<const uint8_t*>(bound.x.const_data_ptr());
  call.out = static_cast<uint8_t*>(bound.out.mutable_data_ptr());
  call.images = static_cast<int32_t>(shape[0]);
  call.channels = static_cast<int32_t>(shape[1]);
  call.h = h;
  call.w = w;
  STD_TORCH_CHECK(bound.out.numel() / pool_bytes(call) < kMostPooled, op,
                  ": expected a result of fewer than 2^31 pieces of ", pool_bytes(call),
                  " channels, got ", shape_text(bound.out), "; split the batch");
  return bound;
}

Tensor run_average(const char* op, const DeviceScope& scope, const Bound& bound,
                   AverageCall& call) {
  if (bound.out.numel() == 0) return bound.out;
  call.pool = bound.call;
  const int32_t splits =
      choose_splits(call.pool, device_facts(scope.device()).multiprocessors);
  if (splits == 0) {
    check_launch(op, launch_average(call, scope.stream()));
    return bound.out;
  }
  std::optional<Tensor> sums;  // freed to the stream's own pool
  if (splits > 1) {
    sums = scope.empty({splits, bound.out.numel()}, ScalarType::Int);
    call.sums = static_cast<int32_t*>(sums->mutable_data_ptr());
  }
  check_launch(op, launch_split_average(call, splits, scope.stream()));
  if (splits > 1) check_launch(op, launch_finish_average(call, splits, scope.stream()));
  return bound.out;
}

AverageCall average_of(const Requantize& map, bool count_include_pad) {
  AverageCall call{};
  call.multiplier = map.multiplier;
  call.zero_point = map.zero_point;
  call.rounding = map.rounding;
  call.count_include_pad = count_include_pad;
  return call;
}

}  // namespace

Tensor int8_max_pool2d_cuda(Tensor x, std::vector<int64_t> kernel_size,
                            std::vector<int64_t> stride, std::vector<int64_t> padding,
                            std::vector<int64_t> dilation, bool ceil_mode) {
  constexpr const char* kOp = "int8_max_pool2d";
  check_windows(kOp, x, kernel_size, stride, padding, dilation);
  const DeviceScope scope(kOp, "x", x);
  const PoolAxis h = axis_of(kOp, x, 2, height_of(kernel_size), height_of(stride),
                             height_of(padding), height_of(dilation), ceil_mode);
  const PoolAxis w = axis_of(kOp, x, 3, width_of(kernel_size), width_of(stride),
                             width_of(padding), width_of(dilation), ceil_mode);
  const Bound bound = bind_pool(kOp, scope, x, h, w);
  if (bound.out.numel() != 0) check_launch(kOp, launch_max_pool(bound.call, scope.stream()));
  return bound.out;
}

Tensor int8_avg_pool2d_cuda(Tensor x, std::vector<int64_t> kernel_size,
                            std::vector<int64_t> stride, std::vector<int64_t> padding,
                            bool ceil_mode, bool count_include_pad, double multiplier,
                            int64_t x_zero_point, int64_t out_zero_point, int64_t qmin,
                            int64_t qmax) {
  constexpr const char* kOp = "int8_avg_pool2d";
  check_windows(kOp, x, kernel_size, stride, padding, {1, 1});
  check_averaged(kOp, kernel_size);
  AverageCall call = average_of(
      check_requantize(kOp, multiplier, x_zero_point, out_zero_point, qmin, qmax),
      count_include_pad);
  const DeviceScope scope(kOp, "x", x);
  const PoolAxis h = axis_of(kOp, x, 2, height_of(kernel_size), height_of(stride),
                             height_of(padding), 1, ceil_mode);
  const PoolAxis w = axis_of(kOp, x, 3, width_of(kernel_size), width_of(stride),
                             width_of(padding), 1, ceil_mode);
  return run_average(kOp, scope, bind_pool(kOp, scope, x, h, w), call);
}

Tensor int8_adaptive_avg_pool2d_cuda(Tensor x, std::vector<int64_t> output_size, double multiplier,
                                     int64_t x_zero_point, int64_t out_zero_point, int64_t qmin,
                                     int64_t qmax) {
  constexpr const char* kOp = "int8_adaptive_avg_pool2d";
  check_adaptive(kOp, x, output_size);
  check_bytes(kOp, x);
  check_counted(kOp, "output_size", output_size);
  const int64_t height = x.sizes()[2], width = x.sizes()[3];
  STD_TORCH_CHECK((height_of(output_size) + 2) * (height + 1) < kMostPooled &&
                      (width_of(output_size) + 2) * (width + 1) < kMostPooled,
                  kOp, ": expected output_size times x's fewer than 2^31, got [",
                  height_of(output_size), ", ", width_of(output_size), "] and ", shape_text(x));
  AverageCall call = average_of(
      check_requantize(kOp, multiplier, x_zero_point, out_zero_point, qmin, qmax), false);
  const DeviceScope scope(kOp, "x", x);
  const auto covering = [](int64_t size, int64_t out) {
    return PoolAxis{static_cast<int32_t>(size), static_cast<int32_t>(out), 0, 0, 0, 0};
  };
  const PoolAxis h = covering(height, height_of(output_size));
  const PoolAxis w = covering(width, width_of(output_size));
  return run_average(kOp, scope, bind_pool(kOp, scope, x, h, w), call);
}

}  // namespace fastinfer::cuda
