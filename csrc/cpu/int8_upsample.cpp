// int8_upsample2d.
#include "../op_checks.h"
#include "conv_geometry.h"
#include "ops.h"
#include "parallel.h"
#include "upsample_driver.h"

namespace fastinfer {
namespace {

constexpr const char* kOp = "int8_upsample2d";

}  // namespace

Tensor int8_upsample2d_cpu(Tensor x, std::optional<Tensor> like, std::vector<int64_t> output_size,
                           std::vector<double> scale_factors, bool bilinear, bool align_corners) {
  const ImageSize size = check_resized(kOp, x, like, output_size, scale_factors);
  const int64_t height = x.sizes()[2], width = x.sizes()[3];
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
