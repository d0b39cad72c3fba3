// int8_depthwise_conv2d.
#include "choice.h"
#include "conv_windows.h"
#include "device.h"
#include "ops.h"

namespace fastinfer::cuda {

Tensor int8_depthwise_conv2d_cuda(Tensor x, Tensor packed, std::optional<Tensor> residual,
                                  Ints kernel_size, Ints stride, Ints padding, Ints dilation,
                                  bool float_output) {
  constexpr const char* kOp = "int8_depthwise_conv2d";
  check_dtype(kOp, "x", x, ScalarType::Byte);
  const DeviceScope scope(kOp, "x", x);
  const PackedHeader h =
      checked_header(kOp, packed, PackedOp::kDepthwiseConv2d, float_output, scope);
  const ConvArguments arguments{kernel_size, stride, padding, dilation, h.n, h.n};
  const Windows windows = checked_windows(kOp, x, h, arguments);
  const Ints shape{x.sizes()[0], h.n, windows.out_height, windows.out_width};
  check_residual(kOp, h, residual, shape, scope);
  const ScalarType dtype = float_output ? ScalarType::Float : ScalarType::Byte;
  Tensor out = scope.empty_nhwc(shape, dtype);
  if (out.numel() == 0) return out;
  const int64_t m = checked_pixels(kOp, shape);
  const DeviceFacts facts = device_facts(scope.device());
  STD_TORCH_CHECK(facts.capability >= 80, kOp, ": expected a GPU of compute capability 8.0 or ",
                  "later, got ", facts.capability / 10, ".", facts.capability % 10,
                  "; keep this layer on the CPU");
  x = as_nhwc(x);
  if (residual) residual = as_nhwc(*residual);
  GemmCall call = bind_call(h, packed, residual, out, scope);
  call.x = static_cast<const uint8_t*>(x.const_data_ptr());
  call.m = m;
  call.windows = windows;
  const DepthwiseConfig config = depthwise_in_force(call, float_output);
  check_launch(kOp, launch_depthwise(call, config, scope.stream()));
  return out;
}

}  // namespace fastinfer::cuda
