// int8_depthwise_conv2d.
#include "choice.h"
#include "conv_windows.h"
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
  const ConvCall bound = bind_conv(kOp, h, x, packed, residual, arguments, float_output, scope);
  if (bound.out.numel() == 0) return bound.out;
  checked_facts(kOp, scope);
  const DepthwiseConfig config = depthwise_in_force(bound.call, float_output);
  check_launch(kOp, launch_depthwise(bound.call, config, scope.stream()));
  return bound.out;
}

}  // namespace fastinfer::cuda
