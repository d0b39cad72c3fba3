// int8_max_pool2d, int8_avg_pool2d, int8_adaptive_avg_pool2d.
#include "conv_geometry.h"
#include "ops.h"
#include "parallel.h"
#include "pool_driver.h"
#include "requantize_check.h"

namespace fastinfer {
namespace {

void check_result(const char* op, const Tensor& x, const PoolAxis& h, const PoolAxis& w) {
  STD_TORCH_CHECK(h.out > 0 && w.out > 0, op, ": the padded input of ", shape_text(x),
                  " is smaller than the kernel");
}

template <class Args>
Tensor run(const Tensor& x, Args args) {
  Tensor out =
      empty_nhwc({x.sizes()[0], x.sizes()[1], args.h.out, args.w.out}, ScalarType::Byte);
  if (out.numel() == 0) return out;
  const Tensor image = as_nhwc(x);
  args.x = static_cast<const uint8_t*>(image.const_data_ptr());
  args.out = static_cast<uint8_t*>(out.mutable_data_ptr());
  args.batch = x.sizes()[0];
  args.channels = args.x_step = args.out_step = x.sizes()[1];
  const KernelTable& table = current_table();
  const Work work = work_of(args);
  const int threads = threads_for(work.cost, work.parts);
  split_range(threads, threads, [&](int64_t t0, int64_t t1) {
    for (int64_t t = t0; t < t1; t++) run_part(args, table, static_cast<int>(t), threads);
  });
  return out;
}

}  // namespace

Tensor int8_max_pool2d_cpu(Tensor x, std::vector<int64_t> kernel_size, std::vector<int64_t> stride,
                           std::vector<int64_t> padding, std::vector<int64_t> dilation,
                           bool ceil_mode) {
  constexpr const char* kOp = "int8_max_pool2d";
  check_pool(kOp, x, kernel_size, stride, padding, dilation);
  MaxPoolArgs args{};
  args.h = PoolAxis::of(x.sizes()[2], height_of(kernel_size), height_of(stride),
                        height_of(padding), height_of(dilation), ceil_mode);
  args.w = PoolAxis::of(x.sizes()[3], width_of(kernel_size), width_of(stride), width_of(padding),
                        width_of(dilation), ceil_mode);
  check_result(kOp, x, args.h, args.w);
  return run(x, args);
}

Tensor int8_avg_pool2d_cpu(Tensor x, std::vector<int64_t> kernel_size, std::vector<int64_t> stride,
                           std::vector<int64_t> padding, bool ceil_mode, bool count_include_pad,
                           double multiplier, int64_t x_zero_point, int64_t out_zero_point,
                           int64_t qmin, int64_t qmax) {
  constexpr const char* kOp = "int8_avg_pool2d";
  check_pool(kOp, x, kernel_size, stride, padding, {1, 1});
  check_averaged(kOp, kernel_size);
  AvgPoolArgs args{};
  args.h = PoolAxis::of(x.sizes()[2], height_of(kernel_size), height_of(stride),
                        height_of(padding), 1, ceil_mode);
  args.w = PoolAxis::of(x.sizes()[3], width_of(kernel_size), width_of(stride), width_of(padding),
                        1, ceil_mode);
  args.count_include_pad = count_include_pad;
  args.map = check_requantize(kOp, multiplier, x_zero_point, out_zero_point, qmin, qmax);
  check_result(kOp, x, args.h, args.w);
  return run(x, args);
}

Tensor int8_adaptive_avg_pool2d_cpu(Tensor x, std::vector<int64_t> output_size, double multiplier,
                                    int64_t x_zero_point, int64_t out_zero_point, int64_t qmin,
                                    int64_t qmax) {
  constexpr const char* kOp = "int8_adaptive_avg_pool2d";
  check_adaptive(kOp, x, output_size);
  const int64_t height = x.sizes()[2], width = x.sizes()[3];
  AvgPoolArgs args{};
  args.h = PoolAxis::adaptive(height, height_of(output_size));
  args.w = PoolAxis::adaptive(width, width_of(output_size));
  args.map = check_requantize(kOp, multiplier, x_zero_point, out_zero_point, qmin, qmax);
  return run(x, args);
}

}  // namespace fastinfer
