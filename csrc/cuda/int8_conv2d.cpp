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
  const Windows windows = checked_windows(kOp, x, h, arguments);
  const Ints shape{x.sizes()[0], h.n, windows.out_height, windows.out_width};
  check_residual(kOp, h, residual, shape, scope);
  const ScalarType dtype = float_output ? ScalarType::Float : ScalarType::Byte;
  Tensor out = scope.empty_nhwc(shape, dtype);
  if (out.numel() == 0) return out;
  const int64_t m = checked_pixels(kOp, shape);
  x = as_nhwc(x);
  if (residual) residual = as_nhwc(*residual);
  GemmCall call = bind_call(h, packed, residual, out, scope);
  call.x = static_cast<const uint8_t*>(x.const_data_ptr());
  call.m = m;
  call.windows = windows;
  run_gemm(kOp, call, scope);
  return out;
}

}  // namespace fastinfer::cuda
