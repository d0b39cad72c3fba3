// int8_upsample2d, float_upsample2d.
#include "../op_checks.h"
#include "conv_geometry.h"
#include "ops.h"
#include "parallel.h"
#include "upsample_driver.h"

namespace fastinfer {
namespace {

struct Axes {
  UpsampleAxis h, w;
};

Axes axes_of(const Tensor& x, const ImageSize& size, const std::vector<double>& factors,
             bool bilinear, bool align_corners) {
  const auto axis = [&](size_t i, int64_t to) {
    const int64_t from = x.sizes()[2 + i];
    const double factor = factors.empty() ? 0 : factors[i];
    return bilinear ? UpsampleAxis::linear(from, to, factor, align_corners)
                    : UpsampleAxis::nearest(from, to, factor);
  };
  return {axis(0, size.height), axis(1, size.width)};
}

}  // namespace

Tensor int8_upsample2d_cpu(Tensor x, std::optional<Tensor> like, std::vector<int64_t> output_size,
                           std::vector<double> scale_factors, bool bilinear, bool align_corners) {
  const ImageSize size = check_resized("int8_upsample2d", x, like, output_size, scale_factors,
                                       ScalarType::Byte);
  const auto [h, w] = axes_of(x, size, scale_factors, bilinear, align_corners);
  Tensor out = empty_nhwc({x.sizes()[0], x.sizes()[1], size.height, size.width}, ScalarType::Byte);
  if (out.numel() == 0) return out;
  const Tensor image = as_nhwc(x);
  run_driver(Upsample{current_table(), h, w, x.sizes()[0], x.sizes()[1],
                      static_cast<const uint8_t*>(image.const_data_ptr()),
                      static_cast<uint8_t*>(out.mutable_data_ptr())});
  return out;
}

Tensor float_upsample2d_cpu(Tensor x, std::optional<Tensor> like,
                            std::vector<int64_t> output_size, std::vector<double> scale_factors,
                            bool align_corners) {
  const ImageSize size = check_resized("float_upsample2d", x, like, output_size, scale_factors,
                                       ScalarType::Float);
  const auto [h, w] = axes_of(x, size, scale_factors, /*bilinear=*/true, align_corners);
  const auto sizes = x.sizes();
  Tensor out = empty_contiguous({sizes[0], sizes[1], size.height, size.width}, ScalarType::Float);
  if (out.numel() == 0) return out;
  const Tensor image = as_nhwc(x);
  run_driver(FloatUpsample{current_table(), h, w, sizes[0], sizes[1],
                           static_cast<const float*>(image.const_data_ptr()),
                           static_cast<float*>(out.mutable_data_ptr())});
  return out;
}

}  // namespace fastinfer
