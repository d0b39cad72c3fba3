// int8_conv2d and int8_conv2d_dynamic: a GEMM over the windows of an NHWC image.
#include "conv_driver.h"
#include "conv_geometry.h"
#include "depthwise_driver.h"
#include "ops.h"
#include "parallel.h"
#include "range.h"

namespace fastinfer {
Tensor int8_conv2d_cpu(Tensor x, Tensor packed, std::optional<Tensor> residual,
                       int64_t out_channels, std::vector<int64_t> kernel_size,
                       std::vector<int64_t> stride, std::vector<int64_t> padding,
                       std::vector<int64_t> dilation, int64_t groups, bool float_output) {
  constexpr const char* kOp = "int8_conv2d";
  check_dtype(kOp, "x", x, ScalarType::Byte);
  const PackedView view = view_packed(kOp, packed, PackedOp::kConv2d, false, float_output);
  const ConvGeometry g = check_conv(kOp, x, view, out_channels, kernel_size, stride, padding,
                                    dilation, groups);
  check_residual(kOp, view, residual, out_shape(g));
  Tensor out = empty_nhwc(out_shape(g), float_output ? ScalarType::Float : ScalarType::Byte);
  if (out.numel() == 0) return out;
  x = as_nhwc(x);
  if (residual) residual = as_nhwc(*residual);
  const GemmOutput output = bind_output(out, residual, float_output, g.out_channels);
  run_driver(ConvDriver(conv_way(view, g), view, g, static_cast<const uint8_t*>(x.const_data_ptr()),
                        static_cast<uint8_t>(view.header->x_zero_point), output));
  return out;
}

Tensor int8_conv2d_dynamic_cpu(Tensor x, Tensor packed, int64_t out_channels,
                               std::vector<int64_t> kernel_size, std::vector<int64_t> stride,
                               std::vector<int64_t> padding, std::vector<int64_t> dilation,
                               int64_t groups) {
  constexpr const char* kOp = "int8_conv2d_dynamic";
  check_dtype(kOp, "x", x, ScalarType::Float);
  const auto* header = static_cast<const PackedHeader*>(packed.const_data_ptr());
  const bool is_depthwise = packed.numel() >= kPackedHeaderBytes &&
                            header->op == static_cast<int32_t>(PackedOp::kDepthwiseConv2d);
  const PackedView view = view_packed(
      kOp, packed, is_depthwise ? PackedOp::kDepthwiseConv2d : PackedOp::kConv2d, true, true);
  const ConvGeometry g = check_conv(kOp, x, view, out_channels, kernel_size, stride, padding,
                                    dilation, groups);
  Tensor out = empty_nhwc(out_shape(g), ScalarType::Float);
  if (out.numel() == 0) return out;
  x = as_nhwc(x);
  const auto* from = static_cast<const float*>(x.const_data_ptr());
  auto* to = static_cast<float*>(out.mutable_data_ptr());
  const int64_t image = g.height * g.width * g.channels;
  const int64_t out_image = g.out_height * g.out_width * g.out_channels;
  ConvGeometry one = g;
  one.batch = 1;
  struct Quantized;
  uint8_t* q = scratch<Quantized>(image);
  // One range a sample: a sample's result does not depend on the batch it came in.
  for (int64_t b = 0; b < g.batch; b++) {
    const RangeParams range = quantize_image(*view.table, from + b * image, image, q);
    GemmOutput output;
    output.ldc = g.out_channels;
    output.out_f32 = to + b * out_image;
    output.row_scale = &range.scale;
    output.row_zero_point = &range.zero_point;
    if (is_depthwise) {
      run_driver(DepthwiseDriver(view, one, q, range.zero_point, output));
    } else {
      const auto fill = static_cast<uint8_t>(range.zero_point);
      run_driver(ConvDriver(conv_way(view, one), view, one, q, fill, output));
    }
  }
  return out;
}

}  // namespace fastinfer
