#include "conv_windows.h"

namespace fastinfer::cuda {
namespace {

Windows windows_of(const char* op, const Tensor& x, const PackedHeader& h, const ConvArguments& a) {
  const int64_t height = x.sizes()[2], width = x.sizes()[3];
  const int64_t free_h = height + 2 * a.padding[0] - a.dilation[0] * (h.kh - 1) - 1;
  const int64_t free_w = width + 2 * a.padding[1] - a.dilation[1] * (h.kw - 1) - 1;
  STD_TORCH_CHECK(free_h >= 0 && free_w >= 0, op, ": the padded input of ", shape_text(x),
                  " is smaller than the kernel");
  constexpr int64_t kLargest = int64_t{1} << 28;  // kernels count places in int32
  STD_TORCH_CHECK(height * width * x.sizes()[1] < (int64_t{1} << 31) && free_h < kLargest &&
                      free_w < kLargest,
                  op, ": expected an image of fewer than 2^31 bytes, got ", shape_text(x));
  const auto narrow = [](int64_t v) { return static_cast<int32_t>(v); };
  Windows w{};
  w.height = narrow(height);
  w.width = narrow(width);
  w.channels = narrow(x.sizes()[1]);
  w.out_height = narrow(free_h / a.stride[0] + 1);
  w.out_width = narrow(free_w / a.stride[1] + 1);
  w.kh = h.kh;
  w.kw = h.kw;
  w.stride_h = narrow(a.stride[0]);
  w.stride_w = narrow(a.stride[1]);
  w.pad_h = narrow(a.padding[0]);
  w.pad_w = narrow(a.padding[1]);
  w.dilation_h = narrow(a.dilation[0]);
  w.dilation_w = narrow(a.dilation[1]);
  return w;
}

// Output pixels of [N, C, H, W], which kernels count in int32.
int64_t checked_pixels(const char* op, const Ints& shape) {
  const int64_t m = shape[0] * shape[2] * shape[3];
  STD_TORCH_CHECK(m < (int64_t{1} << 31), op, ": expected fewer than 2^31 output pixels, got ", m,
                  "; split the batch");
  return m;
}

}  // namespace

void check_conv(const char* op, const Tensor& x, const PackedHeader& h, const ConvArguments& a) {
  const bool is_depthwise = h.op == static_cast<int32_t>(PackedOp::kDepthwiseConv2d);
  const int64_t channels = is_depthwise ? h.n : int64_t{h.c_per_group} * h.groups;
  const int64_t groups = is_depthwise ? h.n : h.groups;
  STD_TORCH_CHECK(x.dim() == 4 && x.sizes()[1] == channels, op, ": expected x [N, ", channels,
                  ", H, W] (weight has in_channels=", channels, "), got ", shape_text(x));
  STD_TORCH_CHECK(a.kernel_size.size() == 2 && a.stride.size() == 2 && a.padding.size() == 2 &&
                      a.dilation.size() == 2,
                  op, ": expected kernel_size, stride, padding and dilation of two numbers each");
  STD_TORCH_CHECK(a.stride[0] > 0 && a.stride[1] > 0 && a.dilation[0] > 0 && a.dilation[1] > 0 &&
                      a.padding[0] >= 0 && a.padding[1] >= 0,
                  op, ": expected stride and dilation >= 1 and padding >= 0");
  STD_TORCH_CHECK(a.kernel_size[0] == h.kh && a.kernel_size[1] == h.kw &&
                      a.out_channels == h.n && a.groups == groups,
                  op, ": expected kernel_size=[", h.kh, ", ", h.kw, "], groups=", groups,
                  ", out_channels=", h.n, " as packed, got [", a.kernel_size[0], ", ",
                  a.kernel_size[1], "], ", a.groups, ", ", a.out_channels);
}

ConvCall bind_conv(const char* op, const PackedHeader& h, const Tensor& x, const Tensor& packed,
                   const std::optional<Tensor>& residual, const ConvArguments& a,
                   bool float_output, const DeviceScope& scope) {
  check_conv(op, x, h, a);
  const Windows windows = windows_of(op, x, h, a);
  const Ints shape{x.sizes()[0], h.n, windows.out_height, windows.out_width};
  check_residual(op, h, residual, shape, scope);
  const ScalarType dtype = float_output ? ScalarType::Float : ScalarType::Byte;
  ConvCall bound{scope.empty_nhwc(shape, dtype), x, residual, {}};
  if (bound.out.numel() == 0) return bound;
  const int64_t m = checked_pixels(op, shape);
  bound.x = as_nhwc(x);
  if (residual) bound.residual = as_nhwc(*residual);
  bound.call = bind_call(h, packed, bound.residual, bound.out, scope);
  bound.call.x = static_cast<const uint8_t*>(bound.x.const_data_ptr());
  bound.call.m = m;
  bound.call.windows = windows;
  return bound;
}

}  // namespace fastinfer::cuda
