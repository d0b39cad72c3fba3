// quantize, dequantize, quantize_dynamic, int8_lookup.
#include <atomic>
#include <mutex>

#include "conv_geometry.h"
#include "kernel_table.h"
#include "ops.h"
#include "parallel.h"
#include "plane_quantizer.h"
#include "range.h"

namespace fastinfer {
namespace {

// Values handled between two looks at the next thing to do: a few KiB stay in L1.
constexpr int64_t kChunk = 4096;

}  // namespace

RangeParams quantize_image(const KernelTable& table, const float* x, int64_t n, uint8_t* q) {
  const int64_t chunks = (n + kChunk - 1) / kChunk;
  const int threads = threads_for(n * kMoveWork, chunks);
  float lo = 0.0f, hi = 0.0f;
  std::mutex mutex;
  split_range(chunks, threads, [&](int64_t c0, int64_t c1) {
    float part_lo = 0.0f, part_hi = 0.0f;
    const int64_t begin = c0 * kChunk, end = std::min(n, c1 * kChunk);
    table.min_max(x + begin, end - begin, &part_lo, &part_hi);
    const std::lock_guard<std::mutex> lock(mutex);
    lo = std::min(lo, part_lo);
    hi = std::max(hi, part_hi);
  });
  const RangeParams range = range_params(lo, hi);
  split_range(chunks, threads, [&](int64_t c0, int64_t c1) {
    const int64_t begin = c0 * kChunk, end = std::min(n, c1 * kChunk);
    table.quantize(x + begin, q + begin, end - begin, range.inverse, range.zero_point);
  });
  return range;
}

Tensor quantize_cpu(Tensor x, double scale, int64_t zero_point, bool channels_last) {
  constexpr const char* kOp = "quantize";
  check_any_float(kOp, "x", x);
  STD_TORCH_CHECK(scale > 0 && zero_point >= 0 && zero_point <= 255, kOp,
                  ": expected scale > 0 and zero_point in 0..255, got ", scale, ", ", zero_point);
  STD_TORCH_CHECK(!channels_last || x.dim() == 4, kOp,
                  ": channels_last: expected x with 4 dimensions, got ", shape_text(x));
  if (x.scalar_type() != ScalarType::Float) x = torch::stable::to(x, ScalarType::Float);
  const KernelTable& table = current_table();
  const float inverse = 1.0f / static_cast<float>(scale);
  const auto zp = static_cast<int32_t>(zero_point);
  const bool from_nhwc = is_channels_last(x);
  const bool to_nhwc = channels_last || from_nhwc;
  if (!from_nhwc) x = as_contiguous(x);
  Tensor out = to_nhwc ? empty_nhwc(sizes_of(x), ScalarType::Byte)
                       : empty_contiguous(sizes_of(x), ScalarType::Byte);
  if (x.numel() == 0) return out;
  const auto* from = static_cast<const float*>(x.const_data_ptr());
  auto* to = static_cast<uint8_t*>(out.mutable_data_ptr());
  if (to_nhwc && !from_nhwc && x.sizes()[1] > 1) {
    const int64_t pixels = x.sizes()[2] * x.sizes()[3];
    run_driver(PlaneQuantizer{table, from, to, x.sizes()[0], x.sizes()[1], pixels, inverse, zp});
    return out;
  }
  const int64_t n = x.numel(), chunks = (n + kChunk - 1) / kChunk;
  split_range(chunks, threads_for(n * kMoveWork, chunks), [&](int64_t c0, int64_t c1) {
    const int64_t begin = c0 * kChunk, end = std::min(n, c1 * kChunk);
    table.quantize(from + begin, to + begin, end - begin, inverse, zp);
  });
  return out;
}

Tensor dequantize_cpu(Tensor x, double scale, int64_t zero_point) {
  check_dtype("dequantize", "x", x, ScalarType::Byte);
  const KernelTable& table = current_table();
  const bool nhwc = is_channels_last(x);
  if (!nhwc) x = as_contiguous(x);
  Tensor out = nhwc ? empty_nhwc(sizes_of(x), ScalarType::Float)
                    : empty_contiguous(sizes_of(x), ScalarType::Float);
  const auto* from = static_cast<const uint8_t*>(x.const_data_ptr());
  auto* to = static_cast<float*>(out.mutable_data_ptr());
  const int64_t n = x.numel(), chunks = (n + kChunk - 1) / kChunk;
  split_range(chunks, threads_for(n * kMoveWork, chunks), [&](int64_t c0, int64_t c1) {
    const int64_t begin = c0 * kChunk, end = std::min(n, c1 * kChunk);
    table.dequantize(from + begin, to + begin, end - begin, static_cast<float>(scale),
                     static_cast<int32_t>(zero_point));
  });
  return out;
}

std::tuple<Tensor, Tensor, Tensor> quantize_dynamic_cpu(Tensor x, bool per_token) {
  constexpr const char* kOp = "quantize_dynamic";
  check_dtype(kOp, "x", x, ScalarType::Float);
  STD_TORCH_CHECK(!per_token || x.dim() >= 1, kOp, ": per_token: expected x [*, K], got a scalar");
  const KernelTable& table = current_table();
  x = as_contiguous(x);
  std::vector<int64_t> shape = sizes_of(x), rows_shape;
  if (per_token) rows_shape.assign(shape.begin(), shape.end() - 1);
  Tensor q = empty_contiguous(shape, ScalarType::Byte);
  Tensor scale = empty_contiguous(rows_shape, ScalarType::Float);
  Tensor zero_point = empty_contiguous(rows_shape, ScalarType::Int);
  const auto* from = static_cast<const float*>(x.const_data_ptr());
  auto* to = static_cast<uint8_t*>(q.mutable_data_ptr());
  auto* s = static_cast<float*>(scale.mutable_data_ptr());
  auto* zp = static_cast<int32_t*>(zero_point.mutable_data_ptr());
  if (!per_token) {
    const RangeParams range = quantize_image(table, from, x.numel(), to);
    *s = range.scale;
    *zp = range.zero_point;
    return {q, scale, zero_point};
  }
  const int64_t rows = scale.numel(), k = shape.back();
  split_range(rows, threads_for(x.numel() * kMoveWork, rows), [&](int64_t r0, int64_t r1) {
    for (int64_t r = r0; r < r1; r++) {
      const RangeParams range = quantize_row(table, from + r * k, k, to + r * k);
      s[r] = range.scale;
      zp[r] = range.zero_point;
    }
  });
  return {q, scale, zero_point};
}

Tensor int8_lookup_cpu(Tensor x, Tensor table_in) {
  constexpr const char* kOp = "int8_lookup";
  check_dtype(kOp, "x", x, ScalarType::Byte);
  check_vector(kOp, "table", table_in, ScalarType::Byte, 256);
  table_in = as_contiguous(table_in);
  const KernelTable& table = current_table();
  const bool nhwc = is_channels_last(x);
  if (!nhwc) x = as_contiguous(x);
  Tensor out = nhwc ? empty_nhwc(sizes_of(x), ScalarType::Byte)
                    : empty_contiguous(sizes_of(x), ScalarType::Byte);
  const auto* from = static_cast<const uint8_t*>(x.const_data_ptr());
  const auto* entries = static_cast<const uint8_t*>(table_in.const_data_ptr());
  auto* to = static_cast<uint8_t*>(out.mutable_data_ptr());
  const int64_t n = x.numel(), chunks = (n + kChunk - 1) / kChunk;
  split_range(chunks, threads_for(n * kMoveWork, chunks), [&](int64_t c0, int64_t c1) {
    const int64_t begin = c0 * kChunk, end = std::min(n, c1 * kChunk);
    table.lookup(from + begin, to + begin, end - begin, entries);
  });
  return out;
}

}  // namespace fastinfer
