// int8_add, int8_mul, int8_cat.
#include "../op_checks.h"
#include "conv_geometry.h"
#include "ops.h"
#include "parallel.h"
#include "pointwise_driver.h"
#include "requantize_check.h"

namespace fastinfer {
namespace {

template <class Args>
void run(const Args& args, const Work& work) {
  const KernelTable& table = current_table();
  const int threads = threads_for(work.cost, work.parts);
  split_range(threads, threads, [&](int64_t t0, int64_t t1) {
    for (int64_t t = t0; t < t1; t++) run_part(args, table, static_cast<int>(t), threads);
  });
}

Tensor dense(const Tensor& t, bool nhwc) { return nhwc ? as_nhwc(t) : as_contiguous(t); }

Tensor empty_dense(const std::vector<int64_t>& shape, bool nhwc) {
  return nhwc ? empty_nhwc(shape, ScalarType::Byte) : empty_contiguous(shape, ScalarType::Byte);
}

const uint8_t* bytes_of(const Tensor& t) {
  return static_cast<const uint8_t*>(t.const_data_ptr());
}

// x, y and the result, dense in x's memory format.
struct Pair {
  Tensor x, y, out;
  PairArgs args;
};

Pair pair_of(const char* op, const Tensor& x, const Tensor& y) {
  const bool repeats = check_repeats(op, x, y);
  const std::vector<int64_t> shape = sizes_of(x);
  const bool nhwc = is_channels_last(x);
  Pair pair{dense(x, nhwc), dense(y, nhwc && !repeats), empty_dense(shape, nhwc), {}};
  PairArgs& args = pair.args;
  args.x = bytes_of(pair.x);
  args.y = bytes_of(pair.y);
  args.out = static_cast<uint8_t*>(pair.out.mutable_data_ptr());
  args.y_repeats = repeats;
  if (!repeats) {
    args.images = args.pixels = 1;
    args.channels = x.numel();
  } else {
    args.images = nhwc ? shape[0] : shape[0] * shape[1];
    args.pixels = shape[2] * shape[3];
    args.channels = nhwc ? shape[1] : 1;
  }
  return pair;
}

}  // namespace

Tensor int8_add_cpu(Tensor x, Tensor y, double x_multiplier, int64_t x_zero_point,
                    double y_multiplier, int64_t y_zero_point, int64_t out_zero_point,
                    int64_t qmin, int64_t qmax, std::optional<Tensor> table) {
  constexpr const char* kOp = "int8_add";
  const Pair pair = pair_of(kOp, x, y);
  check_zero_point(kOp, "y_zero_point", y_zero_point);
  AddArgs args{pair.args,
               check_requantize(kOp, x_multiplier, x_zero_point, out_zero_point, qmin, qmax),
               static_cast<float>(y_multiplier), static_cast<int32_t>(y_zero_point), nullptr};
  if (table) {
    check_vector(kOp, "table", *table, ScalarType::Byte, 256);
    table = as_contiguous(*table);
    args.lookup = bytes_of(*table);
  }
  run(args, work_of(args.pair));
  return pair.out;
}

Tensor int8_mul_cpu(Tensor x, Tensor y, double multiplier, int64_t x_zero_point,
                    int64_t y_zero_point, int64_t out_zero_point, int64_t qmin, int64_t qmax) {
  constexpr const char* kOp = "int8_mul";
  const Pair pair = pair_of(kOp, x, y);
  check_zero_point(kOp, "y_zero_point", y_zero_point);
  const MulArgs args{pair.args,
                     check_requantize(kOp, multiplier, x_zero_point, out_zero_point, qmin, qmax),
                     static_cast<int32_t>(y_zero_point)};
  run(args, work_of(args.pair));
  return pair.out;
}

Tensor int8_cat_cpu(std::vector<Tensor> xs, int64_t dim, std::vector<double> multipliers,
                    std::vector<int64_t> zero_points, int64_t out_zero_point) {
  constexpr const char* kOp = "int8_cat";
  const bool nhwc = !xs.empty() && is_channels_last(xs[0]);
  CatLayout layout = begin_cat(kOp, xs, dim, multipliers.size(), zero_points.size(), nhwc);
  CatArgs args{nullptr, 0, nullptr, layout.rows, 0, 0};
  std::vector<CatPart> parts;
  for (size_t i = 0; i < xs.size(); i++) {
    const int64_t width = add_part(kOp, layout, xs[0], xs[i]);
    xs[i] = dense(xs[i], nhwc);
    parts.push_back({bytes_of(xs[i]), width, width, args.width,
                     check_requantize(kOp, multipliers[i], zero_points[i], out_zero_point, 0,
                                      255)});
    args.width += width;
  }
  const Tensor out = empty_dense(layout.shape, nhwc);
  args.parts = parts.data();
  args.count = static_cast<int64_t>(parts.size());
  args.out = static_cast<uint8_t*>(out.mutable_data_ptr());
  args.step = args.width;
  run(args, work_of(args));
  return out;
}

}  // namespace fastinfer
