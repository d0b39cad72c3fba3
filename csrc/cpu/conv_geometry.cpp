#include "conv_geometry.h"

#include "direct_conv.h"
#include "parallel.h"

namespace fastinfer {

ConvGeometry check_conv(const char* op, const Tensor& x, const PackedView& view,
                        int64_t out_channels, const std::vector<int64_t>& kernel_size,
                        const std::vector<int64_t>& stride, const std::vector<int64_t>& padding,
                        const std::vector<int64_t>& dilation, int64_t groups) {
  const PackedHeader& h = *view.header;
  const bool is_depthwise = h.op == static_cast<int32_t>(PackedOp::kDepthwiseConv2d);
  const int64_t channels = is_depthwise ? h.n : int64_t{h.c_per_group} * h.groups;
  STD_TORCH_CHECK(x.dim() == 4 && x.sizes()[1] == channels, op, ": expected x [N, ", channels,
                  ", H, W] (weight has in_channels=", channels, "), got ", shape_text(x));
  STD_TORCH_CHECK(kernel_size.size() == 2 && stride.size() == 2 && padding.size() == 2 &&
                      dilation.size() == 2,
                  op, ": expected kernel_size, stride, padding and dilation of two numbers each");
  STD_TORCH_CHECK(stride[0] > 0 && stride[1] > 0 && dilation[0] > 0 && dilation[1] > 0 &&
                      padding[0] >= 0 && padding[1] >= 0,
                  op, ": expected stride and dilation >= 1 and padding >= 0");
  const int64_t packed_groups = is_depthwise ? h.n : h.groups;
  STD_TORCH_CHECK(kernel_size[0] == h.kh && kernel_size[1] == h.kw && out_channels == h.n &&
                      groups == packed_groups,
                  op, ": expected kernel_size=[", h.kh, ", ", h.kw, "], groups=", packed_groups,
                  ", out_channels=", h.n, " as packed, got [", kernel_size[0], ", ",
                  kernel_size[1], "], ", groups, ", ", out_channels);
  ConvGeometry g{};
  g.batch = x.sizes()[0];
  g.channels = g.pixel_step = channels;
  g.height = x.sizes()[2];
  g.width = x.sizes()[3];
  g.out_channels = h.n;
  g.kh = h.kh;
  g.kw = h.kw;
  g.stride_h = stride[0];
  g.stride_w = stride[1];
  g.pad_h = padding[0];
  g.pad_w = padding[1];
  g.dilation_h = dilation[0];
  g.dilation_w = dilation[1];
  STD_TORCH_CHECK(g.set_out_size(), op, ": the padded input of ", shape_text(x),
                  " is smaller than the kernel");
  STD_TORCH_CHECK(is_depthwise || DirectConv::reaches(h, g), op,
                  ": expected lines under the kernel of fewer than 2^31 bytes, padding included, got ",
                  shape_text(x), "; split the image");
  return g;
}

Tensor empty_nhwc(const std::vector<int64_t>& shape, ScalarType dtype) {
  const auto at_least_one = [](int64_t v) { return v > 0 ? v : 1; };
  const int64_t c = at_least_one(shape[1]), h = at_least_one(shape[2]), w = at_least_one(shape[3]);
  return empty_strided(shape, {h * w * c, 1, w * c, c}, dtype);
}

bool is_nhwc(const Tensor& t) {
  const auto sizes = t.sizes();
  int64_t expected = 1;
  for (int64_t d : {1, 3, 2, 0}) {
    if (sizes[d] != 1 && t.stride(d) != expected) return false;
    expected *= sizes[d];
  }
  return true;
}

bool is_channels_last(const Tensor& t) {
  return t.dim() == 4 && !t.is_contiguous() && is_nhwc(t);
}

namespace {

template <class T>
void copy_nhwc(const Tensor& from, T* to) {
  const auto* base = static_cast<const T*>(from.const_data_ptr());
  const int64_t n = from.sizes()[0], c = from.sizes()[1], h = from.sizes()[2], w = from.sizes()[3];
  const int64_t sn = from.stride(0), sc = from.stride(1), sh = from.stride(2), sw = from.stride(3);
  split_range(n * h, threads_for(from.numel() * 8, n * h), [&](int64_t r0, int64_t r1) {
    for (int64_t r = r0; r < r1; r++) {
      const T* row = base + r / h * sn + r % h * sh;
      T* out = to + r * w * c;
      for (int64_t x = 0; x < w; x++) {
        for (int64_t i = 0; i < c; i++) out[x * c + i] = row[x * sw + i * sc];
      }
    }
  });
}

}  // namespace

Tensor as_nhwc(const Tensor& t) {
  if (t.numel() == 0 || is_nhwc(t)) return t;
  Tensor out = empty_nhwc(sizes_of(t), t.scalar_type());
  if (t.scalar_type() == ScalarType::Byte) {
    copy_nhwc(t, static_cast<uint8_t*>(out.mutable_data_ptr()));
  } else {
    copy_nhwc(t, static_cast<float*>(out.mutable_data_ptr()));
  }
  return out;
}

}  // namespace fastinfer
