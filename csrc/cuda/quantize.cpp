// quantize and dequantize.
#include "quantize.h"

#include "ops.h"
#include "pointwise.h"
#include "tensors.h"

namespace fastinfer::cuda {
namespace {

FloatType float_type(const Tensor& t) {
  if (t.scalar_type() == ScalarType::Half) return FloatType::kFloat16;
  return t.scalar_type() == ScalarType::BFloat16 ? FloatType::kBfloat16 : FloatType::kFloat32;
}

}  // namespace

Tensor quantize_cuda(Tensor x, double scale, int64_t zero_point, bool channels_last) {
  constexpr const char* kOp = "quantize";
  check_any_float(kOp, "x", x);
  STD_TORCH_CHECK(scale > 0 && zero_point >= 0 && zero_point <= 255, kOp,
                  ": expected scale > 0 and zero_point in 0..255, got ", scale, ", ", zero_point);
  STD_TORCH_CHECK(!channels_last || x.dim() == 4, kOp,
                  ": channels_last: expected x with 4 dimensions, got ", shape_text(x));
  const DeviceScope scope(kOp, "x", x);
  const bool from_nhwc = is_channels_last(x), to_nhwc = channels_last || from_nhwc;
  if (!from_nhwc) x = as_contiguous(x);
  Tensor out = to_nhwc ? scope.empty_nhwc(sizes_of(x), ScalarType::Byte)
                       : scope.empty(sizes_of(x), ScalarType::Byte);
  if (x.numel() == 0) return out;
  QuantizeCall call{};
  call.x = x.const_data_ptr();
  call.type = float_type(x);
  call.out = static_cast<uint8_t*>(out.mutable_data_ptr());
  call.count = x.numel();
  call.inverse = 1.0f / static_cast<float>(scale);
  call.zero_point = static_cast<int32_t>(zero_point);
  call.low = static_cast<float>(-zero_point);
  call.high = static_cast<float>(255 - zero_point);
  if (to_nhwc && !from_nhwc && x.sizes()[1] > 1) {
    call.images = x.sizes()[0];
    call.channels = static_cast<int32_t>(x.sizes()[1]);
    call.pixels = x.sizes()[2] * x.sizes()[3];
    check_launch(kOp, launch_quantize_planes(call, scope.stream()));
  } else {
    check_launch(kOp, launch_quantize(call, scope.stream()));
  }
  return out;
}

Tensor dequantize_cuda(Tensor x, double scale, int64_t zero_point) {
  constexpr const char* kOp = "dequantize";
  check_dtype(kOp, "x", x, ScalarType::Byte);
  const DeviceScope scope(kOp, "x", x);
  const bool nhwc = is_channels_last(x);
  if (!nhwc) x = as_contiguous(x);
  Tensor out = nhwc ? scope.empty_nhwc(sizes_of(x), ScalarType::Float)
                    : scope.empty(sizes_of(x), ScalarType::Float);
  if (x.numel() == 0) return out;
  const DequantizeCall call{static_cast<const uint8_t*>(x.const_data_ptr()),
                            static_cast<float*>(out.mutable_data_ptr()), x.numel(),
                            static_cast<float>(scale), static_cast<int32_t>(zero_point)};
  check_launch(kOp, launch_dequantize(call, scope.stream()));
  return out;
}

}  // namespace fastinfer::cuda
