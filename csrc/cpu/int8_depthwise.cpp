// int8_depthwise_conv2d.
#include "conv_geometry.h"
#include "depthwise_driver.h"
#include "ops.h"
#include "parallel.h"

namespace fastinfer {

Tensor int8_depthwise_conv2d_cpu(Tensor x, Tensor packed, std::optional<Tensor> residual,
                                 std::vector<int64_t> kernel_size, std::vector<int64_t> stride,
                                 std::vector<int64_t> padding, std::vector<int64_t> dilation,
                                 bool float_output) {
  constexpr const char* kOp = "int8_depthwise_conv2d";
  check_dtype(kOp, "x", x, ScalarType::Byte);
  const PackedView view =
      view_packed(kOp, packed, PackedOp::kDepthwiseConv2d, false, float_output);
  const int64_t channels = view.header->n;
  const ConvGeometry g =
      check_conv(kOp, x, view, channels, kernel_size, stride, padding, dilation, channels);
  check_residual(kOp, view, residual, out_shape(g));
  Tensor out = empty_nhwc(out_shape(g), float_output ? ScalarType::Float : ScalarType::Byte);
  if (out.numel() == 0) return out;
  x = as_nhwc(x);
  if (residual) residual = as_nhwc(*residual);
  const GemmOutput output = bind_output(out, residual, float_output, channels);
  run_driver(DepthwiseDriver(view, g, static_cast<const uint8_t*>(x.const_data_ptr()),
                             view.header->x_zero_point, output));
  return out;
}

}  // namespace fastinfer
