// int8_conv2d: a GEMM over the windows of an NHWC image.
#include "ops.h"
#include "packed_headers.h"

namespace fastinfer::cuda {
namespace {

using Ints = std::vector<int64_t>;

struct ConvArguments {
  const Ints &kernel_size, &stride, &padding, &dilation;
  int64_t out_channels, groups;
};

void check_conv(const char* op, const Tensor& x, const PackedHeader& h, const ConvArguments& a) {
  const int64_t channels = int64_t{h.c_per_group} * h.groups;
  STD_TORCH_CHECK(x.dim() == 4 && x.sizes()[1] == channels, op, ": expected x [N, ", channels,
                  ", H, W] (weight has in_channels=", channels, "), got ", shape_text(x));
  STD_TORCH_CHECK(a.kernel_size.size() == 2 && a.stride.size() == 2 && a.padding.size() == 2 &&
                      a.dilation.size() == 2,
                  op, ": expected kernel_size, stride, padding and dilation of two numbers each");
  STD_TORCH_CHECK(a.stride[0] > 0 && a.stride[1] > 0 && a.dilation[0] > 0 && a.dilation[1] > 0 &&
                      a.padding[0] >= 0 && a.padding[1] >= 0,
                  op, ": expected stride and dilation >= 1 and padding >= 0");
  STD_TORCH_CHECK(a.kernel_size[0] == h.kh && a.kernel_size[1] == h.kw &&
                      a.out_channels == h.n && a.groups == h.groups,
                  op, ": expected kernel_size=[", h.kh, ", ", h.kw, "], groups=", h.groups,
                  ", out_channels=", h.n, " as packed, got [", a.kernel_size[0], ", ",
                  a.kernel_size[1], "], ", a.groups, ", ", a.out_channels);
}

Windows windows_of(const char* op, const Tensor& x, const PackedHeader& h, const ConvArguments& a) {
  const int64_t height = x.sizes()[2], width = x.sizes()[3];
  const int64_t free_h = height + 2 * a.padding[0] - a.dilation[0] * (h.kh - 1) - 1;
  const int64_t free_w = width + 2 * a.padding[1] - a.dilation[1] * (h.kw - 1) - 1;
  STD_TORCH_CHECK(free_h >= 0 && free_w >= 0, op, ": the padded input of ", shape_text(x),
                  " is smaller than the kernel");
  constexpr int64_t kLargest = int64_t{1} << 28;  // windows.cuh counts places in int32
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

}  // namespace

Tensor int8_conv2d_cuda(Tensor x, Tensor packed, std::optional<Tensor> residual,
                        int64_t out_channels, Ints kernel_size, Ints stride, Ints padding,
                        Ints dilation, int64_t groups, bool float_output) {
  constexpr const char* kOp = "int8_conv2d";
  check_dtype(kOp, "x", x, ScalarType::Byte);
  const DeviceScope scope(kOp, "x", x);
  const PackedHeader h = checked_header(kOp, packed, PackedOp::kConv2d, float_output, scope);
  const ConvArguments arguments{kernel_size, stride, padding, dilation, out_channels, groups};
  check_conv(kOp, x, h, arguments);
  const Windows windows = windows_of(kOp, x, h, arguments);
  const Ints shape{x.sizes()[0], h.n, windows.out_height, windows.out_width};
  check_residual(kOp, h, residual, shape, scope);
  const ScalarType dtype = float_output ? ScalarType::Float : ScalarType::Byte;
  Tensor out = scope.empty_nhwc(shape, dtype);
  if (out.numel() == 0) return out;
  const int64_t m = shape[0] * shape[2] * shape[3];
  STD_TORCH_CHECK(m < (int64_t{1} << 31), kOp, ": expected fewer than 2^31 output pixels, got ", m,
                  "; split the batch");
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
