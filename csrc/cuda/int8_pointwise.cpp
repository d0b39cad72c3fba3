// int8_add, int8_mul, int8_cat, int8_lookup.
#include "../op_checks.h"
#include "ops.h"
#include "pointwise.h"
#include "requantize.h"
#include "tensors.h"

namespace fastinfer::cuda {
namespace {

Tensor dense(const Tensor& t, bool nhwc) { return nhwc ? as_nhwc(t) : as_contiguous(t); }

Tensor empty_dense(const DeviceScope& scope, const std::vector<int64_t>& shape, bool nhwc) {
  return nhwc ? scope.empty_nhwc(shape, ScalarType::Byte) : scope.empty(shape, ScalarType::Byte);
}

const uint8_t* bytes_of(const Tensor& t) {
  return static_cast<const uint8_t*>(t.const_data_ptr());
}

// x, y and the result, dense in x's memory format; kept alive until the launch.
struct Pair {
  Tensor x, y, out;
  PairCall call;
};

Pair pair_of(const char* op, const DeviceScope& scope, const Tensor& x, const Tensor& y,
             int64_t y_zero_point) {
  const bool repeats = check_repeats(op, x, y);
  scope.check(op, "y", y);
  check_zero_point(op, "y_zero_point", y_zero_point);
  const std::vector<int64_t> shape = sizes_of(x);
  const bool nhwc = is_channels_last(x);
  STD_TORCH_CHECK(!repeats || x.numel() < kMostPlaces, op,
                  ": expected x of fewer than 2^31 bytes where y is [N, C, 1, 1], got ",
                  shape_text(x), "; split the batch");
  Pair pair{dense(x, nhwc), dense(y, nhwc && !repeats), empty_dense(scope, shape, nhwc), {}};
  PairCall& call = pair.call;
  call.x = bytes_of(pair.x);
  call.y = bytes_of(pair.y);
  call.out = static_cast<uint8_t*>(pair.out.mutable_data_ptr());
  call.count = x.numel();
  call.y_zero_point = static_cast<int32_t>(y_zero_point);
  if (repeats) {
    call.repeats = {static_cast<uint32_t>(nhwc ? shape[1] : 1),
                    static_cast<uint32_t>(shape[2] * shape[3])};
  }
  return pair;
}

void set_map(PairCall& call, const Requantize& map) {
  call.x_multiplier = map.multiplier;
  call.x_zero_point = map.zero_point;
  call.rounding = map.rounding;
}

// Launches for parts of the result's columns from `first` on, of at most kMostCatParts.
void run_cat(const char* op, CatCall& call, uint8_t* out, const DeviceScope& scope) {
  if (call.count == 0 || call.width == 0 || call.rows == 0) return;
  const int64_t first = call.parts[0].column;
  call.out = out + first;
  for (int i = 0; i < call.count; i++) call.parts[i].column -= first;
  const int64_t pieces = call.rows * (call.width / cat_bytes(call));
  STD_TORCH_CHECK(pieces < kMostPlaces, op, ": expected fewer than 2^31 pieces of ",
                  cat_bytes(call), " bytes, got ", pieces, "; split the batch");
  check_launch(op, launch_cat(call, scope.stream()));
}

}  // namespace

Tensor int8_add_cuda(Tensor x, Tensor y, double x_multiplier, int64_t x_zero_point,
                     double y_multiplier, int64_t y_zero_point, int64_t out_zero_point,
                     int64_t qmin, int64_t qmax, std::optional<Tensor> table) {
  constexpr const char* kOp = "int8_add";
  const DeviceScope scope(kOp, "x", x);
  Pair pair = pair_of(kOp, scope, x, y, y_zero_point);
  set_map(pair.call,
          check_requantize(kOp, x_multiplier, x_zero_point, out_zero_point, qmin, qmax));
  pair.call.y_multiplier = static_cast<float>(y_multiplier);
  if (table) {
    check_vector(kOp, "table", *table, ScalarType::Byte, 256);
    scope.check(kOp, "table", *table);
    table = as_contiguous(*table);
    pair.call.table = bytes_of(*table);
  }
  if (pair.call.count != 0) check_launch(kOp, launch_pair(pair.call, scope.stream()));
  return pair.out;
}

Tensor int8_mul_cuda(Tensor x, Tensor y, double multiplier, int64_t x_zero_point,
                     int64_t y_zero_point, int64_t out_zero_point, int64_t qmin, int64_t qmax) {
  constexpr const char* kOp = "int8_mul";
  const DeviceScope scope(kOp, "x", x);
  Pair pair = pair_of(kOp, scope, x, y, y_zero_point);
  set_map(pair.call, check_requantize(kOp, multiplier, x_zero_point, out_zero_point, qmin, qmax));
  pair.call.is_product = true;
  if (pair.call.count != 0) check_launch(kOp, launch_pair(pair.call, scope.stream()));
  return pair.out;
}

Tensor int8_cat_cuda(std::vector<Tensor> xs, int64_t dim, std::vector<double> multipliers,
                     std::vector<int64_t> zero_points, int64_t out_zero_point) {
  constexpr const char* kOp = "int8_cat";
  const bool nhwc = !xs.empty() && is_channels_last(xs[0]);
  CatLayout layout = begin_cat(kOp, xs, dim, multipliers.size(), zero_points.size(), nhwc);
  const DeviceScope scope(kOp, "xs", xs[0]);
  std::vector<CatPart> parts;
  int64_t step = 0;
  Rounding rounding{};
  for (size_t i = 0; i < xs.size(); i++) {
    scope.check(kOp, "xs", xs[i]);
    const int64_t width = add_part(kOp, layout, xs[0], xs[i]);
    const Requantize map =
        check_requantize(kOp, multipliers[i], zero_points[i], out_zero_point, 0, 255);
    rounding = map.rounding;
    xs[i] = dense(xs[i], nhwc);
    parts.push_back({bytes_of(xs[i]), width, step, map.multiplier, map.zero_point});
    step += width;
  }
  const Tensor out = empty_dense(scope, layout.shape, nhwc);
  if (out.numel() == 0) return out;
  auto* to = static_cast<uint8_t*>(out.mutable_data_ptr());
  for (size_t i = 0; i < parts.size(); i += kMostCatParts) {
    CatCall call{nullptr, step, 0, layout.rows, rounding, 0, {}};
    for (size_t j = i; j < parts.size() && j < i + kMostCatParts; j++) {
      if (parts[j].width == 0) continue;
      call.parts[call.count++] = parts[j];
      call.width += parts[j].width;
    }
    run_cat(kOp, call, to, scope);
  }
  return out;
}

Tensor int8_lookup_cuda(Tensor x, Tensor table) {
  constexpr const char* kOp = "int8_lookup";
  check_dtype(kOp, "x", x, ScalarType::Byte);
  check_vector(kOp, "table", table, ScalarType::Byte, 256);
  const DeviceScope scope(kOp, "x", x);
  scope.check(kOp, "table", table);
  table = as_contiguous(table);
  const bool nhwc = is_channels_last(x);
  x = dense(x, nhwc);
  const Tensor out = empty_dense(scope, sizes_of(x), nhwc);
  if (x.numel() == 0) return out;
  const LookupCall call{bytes_of(x), bytes_of(table),
                        static_cast<uint8_t*>(out.mutable_data_ptr()), x.numel()};
  check_launch(kOp, launch_lookup(call, scope.stream()));
  return out;
}

}  // namespace fastinfer::cuda
