// int8_conv2d and int8_conv2d_dynamic: a GEMM over the windows of an NHWC image.
#include "choice.h"
#include "conv_windows.h"
#include "dynamic_rows.h"
#include "ops.h"
#include "packed_headers.h"

namespace fastinfer::cuda {

Tensor int8_conv2d_cuda(Tensor x, Tensor packed, std::optional<Tensor> residual,
                        int64_t out_channels, Ints kernel_size, Ints stride, Ints padding,
                        Ints dilation, int64_t groups, bool float_output) {
  constexpr const char* kOp = "int8_conv2d";
  check_dtype(kOp, "x", x, ScalarType::Byte);
  const DeviceScope scope(kOp, "x", x);
  const PackedHeader h = checked_header(kOp, packed, PackedOp::kConv2d, float_output, scope);
  const ConvArguments arguments{kernel_size, stride, padding, dilation, out_channels, groups};
  const ConvCall bound = bind_conv(kOp, h, x, packed, residual, arguments, float_output, scope);
  if (bound.out.numel() != 0) run_gemm(kOp, bound.call, scope);
  return bound.out;
}

Tensor int8_conv2d_dynamic_cuda(Tensor x, Tensor packed, int64_t out_channels, Ints kernel_size,
                                Ints stride, Ints padding, Ints dilation, int64_t groups) {
  constexpr const char* kOp = "int8_conv2d_dynamic";
  check_dtype(kOp, "x", x, ScalarType::Float);
  const DeviceScope scope(kOp, "x", x);
  const bool is_depthwise = packed_op(kOp, packed, scope) == PackedOp::kDepthwiseConv2d;
  const PackedHeader h =
      checked_header(kOp, packed, is_depthwise ? PackedOp::kDepthwiseConv2d : PackedOp::kConv2d,
                     true, scope, true);
  check_conv(kOp, x, h, {kernel_size, stride, padding, dilation, out_channels, groups});
  x = as_nhwc(x);
  // Each image is padded with its own zero point, which no weight can hold: quantizing writes it.
  const QuantizedRows images = quantize_images(kOp, scope, x, padding[0], padding[1]);
  const Ints none{0, 0};
  const ConvArguments arguments{kernel_size, stride, none, dilation, out_channels, groups};
  ConvCall bound = bind_conv(kOp, h, images.q, packed, std::nullopt, arguments, true, scope);
  if (bound.out.numel() == 0) return bound.out;
  const Windows& w = bound.call.windows;
  bind_ranges(bound.call, images, int64_t{w.out_height} * w.out_width);
  if (!is_depthwise) {
    run_gemm(kOp, bound.call, scope);
    return bound.out;
  }
  checked_facts(kOp, scope);
  const DepthwiseConfig config = depthwise_in_force(bound.call, true);
  check_launch(kOp, launch_depthwise(bound.call, config, scope.stream()));
  return bound.out;
}

}  // namespace fastinfer::cuda
