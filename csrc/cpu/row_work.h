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
class ChannelMeanWork {
 public:
  ChannelMeanWork(int64_t images, int64_t channels, int64_t pixels)
      : images_(images), channels_(channels), pixels_(pixels) {}

  Work work() const {
    return {images_ * channels_ * pixels_ * kMoveWork, images_ * divide_up(channels_, kUnit)};
  }
  void run_part(const KernelTable& table, const float* x, float* out, int thread,
                int threads) const {
    const int64_t units = divide_up(channels_, kUnit);
    const auto [begin, end] = share_of(images_ * units, thread, threads);
    for (int64_t unit = begin; unit < end;) {
      const int64_t image = unit / units, first = unit % units;
      const int64_t last = std::min(units, first + end - unit);
      const int64_t c0 = first * kUnit, c1 = std::min(channels_, last * kUnit);
      table.channel_means({x + image * pixels_ * channels_ + c0, out + image * channels_ + c0,
                           pixels_, c1 - c0, channels_});
      unit += last - first;
    }
  }

 private:
  static constexpr int64_t kUnit = 64;  // of channels: whole lines of cache
  const int64_t images_, channels_, pixels_;
};

}  // namespace fastinfer
