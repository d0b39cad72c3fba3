#include "upsample_driver.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "scratch.h"

namespace fastinfer {
namespace {

// Pixels of x from one pixel of the result to the next.
float scale_of(int64_t size, int64_t out, double factor) {
  if (factor > 0) return static_cast<float>(1.0 / factor);
  return static_cast<float>(size) / static_cast<float>(out);
}

}  // namespace

UpsampleAxis UpsampleAxis::nearest(int64_t size, int64_t out, double factor) {
  UpsampleAxis axis{size, {}, {}, {}};
  const float scale = scale_of(size, out, factor);
  for (int64_t i = 0; i < out; i++) {
    const auto source = static_cast<int64_t>(std::floor(static_cast<float>(i) * scale));
    axis.first.push_back(std::min(source, size - 1));
  }
  return axis;
}

UpsampleAxis UpsampleAxis::linear(int64_t size, int64_t out, double factor, bool align_corners) {
  UpsampleAxis axis{size, {}, {}, {}};
  float scale = scale_of(size, out, factor);
  if (align_corners) scale = out > 1 ? scale_of(size - 1, out - 1, 0) : 0.0f;
  for (int64_t i = 0; i < out; i++) {
    auto source = static_cast<float>(i);
    if (size == out) {
      axis.first.push_back(i);
      axis.second.push_back(i);
      axis.weight.push_back(0.0f);
      continue;
    }
    source = align_corners ? source * scale : (source + 0.5f) * scale - 0.5f;
    source = std::max(source, 0.0f);
    const int64_t first = std::min(static_cast<int64_t>(std::floor(source)), size - 1);
    axis.first.push_back(first);
    axis.second.push_back(std::min(first + 1, size - 1));
    axis.weight.push_back(std::clamp(source - static_cast<float>(first), 0.0f, 1.0f));
  }
  return axis;
}

Work Upsample::work() const {
  const int64_t rows = batch * h.out();
  // A mean of four costs some ten operations on bytes made floats.
  return {rows * w.out() * channels * (h.is_linear() ? 2 * kMoveWork : kMoveWork), rows};
}

void Upsample::run_part(int thread, int threads) const {
  const auto [begin, end] = share_of(batch * h.out(), thread, threads);
  if (channels == 0) return;
  for (int64_t r = begin; r < end; r++) {
    if (h.is_linear()) {
      linear_row(r / h.out(), r % h.out());
    } else {
      nearest_row(r / h.out(), r % h.out());
    }
  }
}

void Upsample::nearest_row(int64_t image, int64_t row) const {
  const auto y = static_cast<size_t>(row);
  const uint8_t* const from = x + (image * h.size + h.first[y]) * w.size * channels;
  uint8_t* to = out + (image * h.out() + row) * w.out() * channels;
  for (const int64_t column : w.first) {
    std::memcpy(to, from + column * channels, static_cast<size_t>(channels));
    to += channels;
  }
}

void Upsample::linear_row(int64_t image, int64_t row) const {
  const auto y = static_cast<size_t>(row);
  const int64_t row_bytes = w.size * channels;
  const uint8_t* const first = x + image * h.size * row_bytes;
  LerpRun run{};
  run.top = first + h.first[y] * row_bytes;
  run.bottom = first + h.second[y] * row_bytes;
  run.left = w.first.data();
  run.right = w.second.data();
  run.right_weight = w.weight.data();
  run.bottom_weight = h.weight[y];
  run.pixels = w.out();
  run.n = channels;
  run.out = out + (image * h.out() + row) * w.out() * channels;
  table.lerp(run);
}

Work FloatUpsample::work() const {
  const int64_t rows = batch * channels * h.out();
  return {rows * w.out() * 2 * kMoveWork, rows};
}

void FloatUpsample::run_part(int thread, int threads) const {
  const auto [begin, end] = share_of(batch * channels * h.out(), thread, threads);
  if (begin == end) return;
  LerpPlaneRun run{};
  run.row_step = w.size * channels;
  run.pixel_step = channels;
  run.top = h.first.data();
  run.bottom = h.second.data();
  run.bottom_weight = h.weight.data();
  run.left = w.first.data();
  run.right = w.second.data();
  run.right_weight = w.weight.data();
  run.pixels = w.out();
  const auto bytes = 2 * w.out() * static_cast<int64_t>(sizeof(float));
  run.mixed = reinterpret_cast<float*>(scratch<FloatUpsample>(bytes));
  for (int64_t row = begin; row < end; row += run.last - run.first) {
    const int64_t plane = row / h.out(), image = plane / channels;
    run.x = x + image * h.size * run.row_step + plane % channels;
    run.first = row % h.out();
    run.last = std::min(h.out(), run.first + end - row);
    run.out = out + row * w.out();
    table.lerp_plane(run);
  }
}

}  // namespace fastinfer
