// int8_upsample2d.
#include "conv_geometry.h"
#include "ops.h"
#include "parallel.h"
#include "upsample_driver.h"

namespace fastinfer {
namespace {

constexpr const char* kOp = "int8_upsample2d";

struct Size {
  int64_t height, width;
};

Size size_of(const Tensor& x, const std::optional<Tensor>& like, const std::vector<int64_t>& size,
             const std::vector<double>& factors) {
  const int given = (like.has_value() ? 1 : 0) + (size.empty() ? 0 : 1) + (factors.empty() ? 0 : 1);
  STD_TORCH_CHECK(given == 1 && (size.empty() || size.size() == 2) &&
                      (factors.empty() || factors.size() == 2),
                  kOp, ": expected one of like, output_size [H, W] and scale_factors [H, W], got ",
                  like.has_value() ? "a" : "no", " like, ", size.size(), " and ", factors.size(),
                  " numbers");
  if (like.has_value()) {
    STD_TORCH_CHECK(like->dim() == 4, kOp, ": expected like [N, C, H, W], got ",
                    shape_text(*like));
    return {like->sizes()[2], like->sizes()[3]};
  }
  if (!size.empty()) return {size[0], size[1]};
  return {upsampled_size(x.sizes()[2], factors[0]), upsampled_size(x.sizes()[3], factors[1])};
}

}  // namespace

Tensor int8_upsample2d_cpu(Tensor x, std::optional<Tensor> like, std::vector<int64_t> output_size,
                           std::vector<double> scale_factors, bool bilinear, bool align_corners) {
  check_dtype(kOp, "x", x, ScalarType::Byte);
  STD_TORCH_CHECK(x.dim() == 4, kOp, ": expected x [N, C, H, W], got ", shape_text(x));
  const Size size = size_of(x, like, output_size, scale_factors);
  const int64_t height = x.sizes()[2], width = x.sizes()[3];
  STD_TORCH_CHECK(height > 0 && width > 0 && size.height > 0 && size.width > 0, kOp,
                  ": expected sizes >= 1, got ", shape_text(x), " to [", size.height, ", ",
                  size.width, "]");
  const double fy = scale_factors.empty() ? 0 : scale_factors[0];
  const double fx = scale_factors.empty() ? 0 : scale_factors[1];
  const auto axis = [&](int64_t from, int64_t to, double factor) {
    return bilinear ? UpsampleAxis::linear(from, to, factor, align_corners)
                    : UpsampleAxis::nearest(from, to, factor);
  };
  const UpsampleAxis h = axis(height, size.height, fy), w = axis(width, size.width, fx);
  Tensor out = empty_nhwc({x.sizes()[0], x.sizes()[1], size.height, size.width}, ScalarType::Byte);
  if (out.numel() == 0) return out;
  const Tensor image = as_nhwc(x);
  const Upsample upsample{h,
                          w,
                          bilinear,
                          x.sizes()[0],
                          x.sizes()[1],
                          static_cast<const uint8_t*>(image.const_data_ptr()),
                          static_cast<uint8_t*>(out.mutable_data_ptr())};
  const KernelTable& table = current_table();
  const Work work = upsample.work();
  const int threads = threads_for(work.cost, work.parts);
  split_range(threads, threads, [&](int64_t t0, int64_t t1) {
    for (int64_t t = t0; t < t1; t++) upsample.run_part(table, static_cast<int>(t), threads);
  });
  return out;
}

}  // namespace fastinfer
