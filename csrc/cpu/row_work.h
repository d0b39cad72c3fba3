// What float steps cost, and how they are split. Torch-free.
#pragma once

#include "kernel_table.h"
#include "work.h"

namespace fastinfer {

// elements: of all rows; n > 0: of one. A row is one thread's.
inline Work row_work(int64_t elements, int64_t n) {
  // Three passes; an exponential is some twenty operations on a vector.
  return {elements * 4 * kMoveWork, elements / n};
}

// The means of images' channels, NHWC: threads take channels of all images in turn.
struct ChannelMeanDriver {
  const KernelTable& table;
  const float* x;
  float* out;
  int64_t images, channels, pixels;

  static constexpr int64_t kUnit = 64;  // of channels: whole lines of cache

  Work work() const {
    return {images * channels * pixels * kMoveWork, images * divide_up(channels, kUnit)};
  }
  void run_part(int thread, int threads) const {
    const int64_t units = divide_up(channels, kUnit);
    const auto [begin, end] = share_of(images * units, thread, threads);
    for (int64_t unit = begin; unit < end;) {
      const int64_t image = unit / units, first = unit % units;
      const int64_t last = std::min(units, first + end - unit);
      const int64_t c0 = first * kUnit, c1 = std::min(channels, last * kUnit);
      table.channel_means({x + image * pixels * channels + c0, out + image * channels + c0, pixels,
                           c1 - c0, channels});
      unit += last - first;
    }
  }
};

}  // namespace fastinfer
