// int8_conv2d: a GEMM over the windows of an NHWC image.
#include "conv_windows.h"
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

}  // namespace fastinfer::cuda
