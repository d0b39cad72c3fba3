// int8_upsample2d.
#include "../op_checks.h"
#include "ops.h"
#include "tensors.h"
#include "upsample.h"

namespace fastinfer::cuda {
namespace {

constexpr const char* kOp = "int8_upsample2d";

}  // namespace

Tensor int8_upsample2d_cuda(Tensor x, std::optional<Tensor> like, std::vector<int64_t> output_size,
                            std::vector<double> scale_factors, bool bilinear, bool align_corners) {
  const ImageSize size = check_resized(kOp, x, like, output_size, scale_factors,
                                       ScalarType::Byte);
  const int64_t height = x.sizes()[2], width = x.sizes()[3];
  constexpr int64_t kMostPixels = int64_t{1} << 24;  // of a side: float32 counts them
  STD_TORCH_CHECK(x.sizes()[1] * height * width < kMostUpsampled && size.height <= kMostPixels &&
                      size.width <= kMostPixels && height <= kMostPixels && width <= kMostPixels,
                  kOp, ": expected images of fewer than 2^31 bytes and sides of at most 2^24, got ",
                  shape_text(x), " to [", size.height, ", ", size.width, "]");
  const DeviceScope scope(kOp, "x", x);
  Tensor out =
      scope.empty_nhwc({x.sizes()[0], x.sizes()[1], size.height, size.width}, ScalarType::Byte);
  if (out.numel() == 0) return out;
  const double fy = scale_factors.empty() ? 0 : scale_factors[0];
  const double fx = scale_factors.empty() ? 0 : scale_factors[1];
  const auto axis = [&](int64_t from, int64_t to, double factor) {
    return bilinear ? linear_axis(from, to, factor, align_corners)
                    : nearest_axis(from, to, factor);
  };
  const Tensor image = as_nhwc(x);
  const UpsampleCall call{static_cast<const uint8_t*>(image.const_data_ptr()),
                          static_cast<uint8_t*>(out.mutable_data_ptr()),
                          static_cast<int32_t>(x.sizes()[0]),
                          static_cast<int32_t>(x.sizes()[1]),
                          axis(height, size.height, fy),
                          axis(width, size.width, fx),
                          bilinear};
  STD_TORCH_CHECK(out.numel() / upsample_bytes(call) < kMostUpsampled, kOp,
                  ": expected a result of fewer than 2^31 pieces of ", upsample_bytes(call),
                  " channels, got ", shape_text(out), "; split the batch");
  check_launch(kOp, launch_upsample(call, scope.stream()));
  return out;
}

}  // namespace fastinfer::cuda
