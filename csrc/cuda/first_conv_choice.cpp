#include <algorithm>

#include "int8_first_conv.h"

namespace fastinfer::cuda {
namespace {

constexpr int32_t kMostColumns = 128, kMostSharedBytes = 48 * 1024;

int64_t rounded_up_quotient(int64_t a, int64_t b) { return (a + b - 1) / b; }

FirstConvConfig config_of(const GemmCall& call, int32_t rows, int32_t multiprocessors) {
  const Windows& w = call.windows;
  FirstConvConfig f{};
  f.taps = w.kh;
  f.rows = rows;
  f.columns = static_cast<int32_t>(
      std::min<int64_t>(rounded_up_quotient(w.out_width, 16) * 16, kMostColumns));
  f.tiles_y = static_cast<int32_t>(rounded_up_quotient(w.out_height, rows));
  f.tiles_x = static_cast<int32_t>(rounded_up_quotient(w.out_width, f.columns));
  const int64_t images = call.m / (int64_t{w.out_height} * w.out_width);
  f.tiles = static_cast<int32_t>(images * f.tiles_y * f.tiles_x);  // at most m
  f.in_rows = (rows - 1) * w.stride_h + w.kh;
  f.pitch = (f.columns - 1) * w.stride_w + 8;  // of the last window, 8 taps are read
  f.blocks = std::min(f.tiles, 2 * multiprocessors);
  return f;
}

// In proportion to the time of the busiest multiprocessor: products and results of a tile's rows,
// pixels brought to shared memory, and what a tile costs besides. By counting instructions; not
// fitted to a GPU yet.
int64_t cost(const FirstConvConfig& f, int32_t multiprocessors) {
  const int64_t tile = int64_t{1140} * f.rows + int64_t{60} * f.in_rows + 800;
  return rounded_up_quotient(f.tiles, multiprocessors) * tile;
}

}  // namespace

std::optional<FirstConvConfig> choose_first_conv(const GemmCall& call, int32_t multiprocessors) {
  const Windows& w = call.windows;
  const int32_t most_taps = w.kh == 7 ? 8 : 4;  // that a step of K has of a row
  const bool fits = call.run <= 4 && call.groups == 1 && (w.kh == 3 || w.kh == 4 || w.kh == 7) &&
                    w.kw <= most_taps && w.kw > 1 && w.stride_w <= 4 && w.stride_h <= 4 &&
                    w.dilation_h == 1 && w.dilation_w == 1;
  if (!fits) return std::nullopt;
  std::optional<FirstConvConfig> best;
  for (const int32_t rows : {8, 4, 2, 1}) {
    const FirstConvConfig f = config_of(call, rows, multiprocessors);
    if (f.in_rows * f.pitch * 4 > kMostSharedBytes) continue;
    if (!best || cost(f, multiprocessors) < cost(*best, multiprocessors)) best = f;
  }
  return best;
}

}  // namespace fastinfer::cuda
