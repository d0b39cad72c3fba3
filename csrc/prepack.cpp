#include "prepack.h"

#include <cmath>

namespace fastinfer {
namespace {

constexpr const char* kOp = "int8_prepack";

PackedOp parse_op(const std::string& op) {
  if (op == "linear") return PackedOp::kLinear;
  if (op == "conv2d") return PackedOp::kConv2d;
  STD_TORCH_CHECK(op == "depthwise_conv2d", kOp,
                  ": expected op linear, conv2d or depthwise_conv2d, got ", op);
  return PackedOp::kDepthwiseConv2d;
}

// Returns the largest magnitude each channel's accumulator can have: for no uint8 input one may leave
// int32.
std::vector<int64_t> check_accumulator(const int8_t* weight, const int32_t* bias, int64_t n,
                                       int64_t k) {
  std::vector<int64_t> worst_of;
  for (int64_t i = 0; i < n; i++) {
    int64_t sum = 0;
    for (int64_t j = 0; j < k; j++) {
      const int w = weight[i * k + j];
      STD_TORCH_CHECK(w != -128, kOp, ": expected weights in -127..127, got -128 in channel ", i);
      sum += std::abs(w);
    }
    const int64_t worst = sum * 255 + std::abs(int64_t{bias[i]});
    STD_TORCH_CHECK(worst < (int64_t{1} << 31), kOp, ": channel ", i, " can reach ", worst,
                    " >= 2^31 in its int32 accumulator; keep this layer float or split it along K");
    worst_of.push_back(worst);
  }
  return worst_of;
}

// The sum of such a product and of 255 times such a residual's multiplier stays within int32.
constexpr double kBoundedProduct = 0.99 * 2147483648.0, kBoundedResidual = 255 * 65536.0;
constexpr double kSmall = 2097152.0;

// The largest product and residual of results before they are clamped. A layer that hardly answers has
// channels with multipliers above 1, whose sums are small. NaN counts as infinite.
struct Largest {
  double product = 0, residual = 0;
};

Largest largest_result(const std::vector<int64_t>& worst, const float* multiplier,
                       const float* residual_multiplier) {
  const auto larger = [](double a, double b) { return b <= a ? a : std::isnan(b) ? INFINITY : b; };
  Largest found;
  for (size_t i = 0; i < worst.size(); i++) {
    found.product = larger(found.product,
                           static_cast<double>(worst[i]) * std::abs(double{multiplier[i]}));
    if (residual_multiplier == nullptr) continue;
    found.residual = larger(found.residual, 255 * std::abs(double{residual_multiplier[i]}));
  }
  return found;
}

}  // namespace

PackedHeader begin_prepack(PrepackInputs& in, const std::string& op, int64_t groups,
                           int64_t x_zero_point, int64_t out_zero_point, int64_t qmin,
                           int64_t qmax, double clamp_min, double clamp_max, bool float_output,
                           bool strided) {
  const PackedOp kind = parse_op(op);
  check_dtype(kOp, "weight", in.weight, ScalarType::Char);
  const int64_t dims = kind == PackedOp::kLinear ? 2 : 4;
  STD_TORCH_CHECK(in.weight.dim() == dims && in.weight.numel() > 0, kOp,
                  ": expected weight with ", dims, " dimensions and elements for ", op, ", got ",
                  shape_text(in.weight));
  in.weight = as_contiguous(in.weight);
  const int64_t n = in.weight.sizes()[0];
  STD_TORCH_CHECK(groups >= 1 && n % groups == 0 && (kind != PackedOp::kLinear || groups == 1),
                  kOp, ": groups=", groups, " does not divide ", n, " output channels");
  const bool is_depthwise = kind == PackedOp::kDepthwiseConv2d;
  STD_TORCH_CHECK(!is_depthwise || (groups == n && in.weight.sizes()[1] == 1), kOp,
                  ": depthwise_conv2d: expected weight [C, 1, kh, kw] and groups=C, got ",
                  shape_text(in.weight), " and groups=", groups);
  check_vector(kOp, "bias", in.bias, ScalarType::Int, n);
  check_vector(kOp, "multiplier", in.multiplier, ScalarType::Float, n);
  in.bias = as_contiguous(in.bias);
  in.multiplier = as_contiguous(in.multiplier);
  const auto check_optional = [](const char* name, std::optional<Tensor>& t, ScalarType type,
                                 int64_t size) {
    if (!t) return;
    check_vector(kOp, name, *t, type, size);
    t = as_contiguous(*t);
  };
  check_optional("residual_multiplier", in.residual_multiplier, ScalarType::Float, n);
  check_optional("table", in.table, ScalarType::Byte, 256);
  check_optional("float_bias", in.float_bias, ScalarType::Float, n);
  const auto is_byte = [](int64_t v) { return v >= 0 && v <= 255; };
  STD_TORCH_CHECK(is_byte(x_zero_point) && is_byte(out_zero_point), kOp,
                  ": expected zero points in 0..255, got x ", x_zero_point, ", out ",
                  out_zero_point);
  STD_TORCH_CHECK(is_byte(qmin) && is_byte(qmax) && qmin <= qmax, kOp,
                  ": expected 0 <= qmin <= qmax <= 255, got ", qmin, ", ", qmax);
  STD_TORCH_CHECK(!(in.table && float_output), kOp,
                  ": a table needs an int8 output, got float_output=True");
  STD_TORCH_CHECK(!in.float_bias || (float_output && !in.residual_multiplier), kOp,
                  ": a dynamic weight answers in float and takes no residual");

  PackedHeader h{};
  std::memcpy(h.magic, kPackedMagic, 4);
  h.version = kPackedVersion;
  h.op = static_cast<int32_t>(kind);
  h.n = static_cast<int32_t>(n);
  h.k = static_cast<int32_t>(in.weight.numel() / n);
  h.groups = is_depthwise ? 1 : static_cast<int32_t>(groups);
  h.c_per_group = kind == PackedOp::kLinear ? 1 : static_cast<int32_t>(in.weight.sizes()[1]);
  h.kh = kind == PackedOp::kLinear ? 1 : static_cast<int32_t>(in.weight.sizes()[2]);
  h.kw = kind == PackedOp::kLinear ? 1 : static_cast<int32_t>(in.weight.sizes()[3]);
  h.x_zero_point = static_cast<int32_t>(x_zero_point);
  h.out_zero_point = static_cast<int32_t>(out_zero_point);
  h.qmin = static_cast<int32_t>(qmin);
  h.qmax = static_cast<int32_t>(qmax);
  h.clamp_min = static_cast<float>(clamp_min);
  h.clamp_max = static_cast<float>(clamp_max);
  h.flags = (float_output ? kFlagFloatOutput : 0) | (strided ? kFlagStrided : 0) | (in.residual_multiplier ? kFlagResidual : 0) |
            (in.table ? kFlagTable : 0) | (in.float_bias ? kFlagDynamic : 0);

  const auto* w = static_cast<const int8_t*>(in.weight.const_data_ptr());
  const auto* b = static_cast<const int32_t*>(in.bias.const_data_ptr());
  const auto* m = static_cast<const float*>(in.multiplier.const_data_ptr());
  const Largest largest = largest_result(check_accumulator(w, b, n, h.k), m,
                                         data_of<float>(in.residual_multiplier));
  if (largest.product > kBoundedProduct || largest.residual > kBoundedResidual) {
    h.flags |= kFlagUnbounded;
  }
  if (largest.product + largest.residual <= kSmall) h.flags |= kFlagSmall;
  return h;
}

std::vector<int8_t> window_order(const int8_t* weight, const PackedHeader& h) {
  const int64_t taps = int64_t{h.kh} * h.kw, channels = h.c_per_group;
  std::vector<int8_t> out(static_cast<size_t>(int64_t{h.n} * h.k));
  int8_t* to = out.data();
  for (int64_t n = 0; n < h.n; n++) {
    const int8_t* const from = weight + n * h.k;
    for (int64_t t = 0; t < taps; t++) {
      for (int64_t c = 0; c < channels; c++) *to++ = from[c * taps + t];
    }
  }
  return out;
}

}  // namespace fastinfer
