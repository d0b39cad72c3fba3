#include "pool_driver.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "copy_pixels.h"
#include "scratch.h"

namespace fastinfer {
namespace {

// Channels are split over threads in blocks of a cache line.
constexpr int64_t kBlock = 64;

int64_t blocks_of(int64_t channels) { return (channels + kBlock - 1) / kBlock; }

// Behind the last byte of x.
template <class Args>
const uint8_t* end_of(const Args& a) {
  const int64_t pixels = a.batch * a.h.size * a.w.size;
  return a.x + (pixels - 1) * a.x_step + a.channels;
}

// A window's pixels inside the image, and what their sum is divided by.
struct Window {
  int64_t first, last, divisor;
};

Window window_of(const PoolAxis& axis, int64_t i, bool include_pad) {
  if (axis.is_adaptive) {
    const int64_t first = i * axis.size / axis.out;
    const int64_t last = ((i + 1) * axis.size + axis.out - 1) / axis.out;
    return {first, last, last - first};
  }
  const int64_t start = i * axis.stride - axis.padding;
  const int64_t end = std::min(start + axis.kernel, axis.size + axis.padding);
  const int64_t first = std::max<int64_t>(start, 0), last = std::min(end, axis.size);
  return {first, last, include_pad ? end - start : last - first};
}

// Neighbouring windows of one size, one distance apart.
struct WindowRun {
  int64_t begin, count;
  Window window;  // the first
  int64_t step;   // in pixels
};

std::vector<WindowRun> runs_of(const PoolAxis& axis, bool include_pad) {
  std::vector<WindowRun> runs;
  int64_t previous = 0;  // where the window before begins
  for (int64_t i = 0; i < axis.out; i++) {
    const Window next = window_of(axis, i, include_pad);
    if (!runs.empty()) {
      WindowRun& run = runs.back();
      const Window& w = run.window;
      const int64_t step = next.first - previous;
      if (next.last - next.first == w.last - w.first && next.divisor == w.divisor &&
          (run.count == 1 || step == run.step)) {
        run.count++;
        run.step = step;
        previous = next.first;
        continue;
      }
    }
    runs.push_back({i, 1, next, 0});
    previous = next.first;
  }
  return runs;
}

// One thread's share of max pooling: whole output rows. The largest of a window's rows goes to a
// line with the padding's zeros around it, and the largest of the line's pixels to the result, so
// that the first step reads whole rows and no pixel is at an edge in the second. Results that lie
// apart are made side by side first.
class MaxRows {
 public:
  MaxRows(const MaxPoolArgs& args, const KernelTable& table) : a_(args), table_(table) {
    struct Line;
    const PoolAxis& w = a_.w;
    // Past the last window nothing is read but whole vectors.
    const int64_t pixels = (w.out - 1) * w.stride + (w.kernel - 1) * w.dilation + 1;
    const int64_t bytes = pixels * a_.channels + kBlock;
    line_ = scratch<Line>(bytes);
    end_ = line_ + bytes;
    std::memset(line_, 0, static_cast<size_t>(bytes));
    held_ = std::max<int64_t>(0, std::min(w.size, pixels - w.padding));
    struct Results;
    if (a_.out_step != a_.channels) results_ = scratch<Results>(w.out * a_.channels);
    rows_.reserve(static_cast<size_t>(a_.h.kernel));
    for (int64_t j = 0; j < w.kernel; j++) {
      columns_.push_back(line_ + j * w.dilation * a_.channels);
    }
  }

  void row(int64_t image, int64_t oy) {
    const PoolAxis &h = a_.h, &w = a_.w;
    const int64_t c = a_.channels, row_bytes = w.size * a_.x_step;
    rows_.clear();
    for (int64_t i = 0; i < h.kernel; i++) {
      const int64_t y = oy * h.stride - h.padding + i * h.dilation;
      if (y >= 0 && y < h.size) rows_.push_back(a_.x + (image * h.size + y) * row_bytes);
    }
    uint8_t* const middle = line_ + w.padding * c;
    if (rows_.empty()) {
      std::memset(middle, 0, static_cast<size_t>(held_ * c));
    } else {
      const uint8_t* const end = end_of(a_);
      const int taps = static_cast<int>(rows_.size());
      if (a_.x_step == c) {
        table_.max({rows_.data(), end, taps, held_ * c, 1, 0, middle});
      } else {
        table_.max({rows_.data(), end, taps, c, held_, a_.x_step, middle});
      }
    }
    uint8_t* const to = a_.out + (image * h.out + oy) * w.out * a_.out_step;
    uint8_t* const out = results_ != nullptr ? results_ : to;
    const int count = static_cast<int>(columns_.size());
    if (w.stride == 1) {
      table_.max({columns_.data(), end_, count, w.out * c, 1, 0, out});
    } else {
      table_.max({columns_.data(), end_, count, c, w.out, w.stride * c, out});
    }
    if (results_ != nullptr) copy_pixels(to, a_.out_step, results_, c, c, w.out);
  }

 private:
  const MaxPoolArgs& a_;
  const KernelTable& table_;
  uint8_t* line_;
  const uint8_t* end_;  // of the line
  int64_t held_;        // pixels of a row that some window reads
  uint8_t* results_ = nullptr;
  std::vector<const uint8_t*> rows_, columns_;
};

}  // namespace

PoolAxis PoolAxis::of(int64_t size, int64_t kernel, int64_t stride, int64_t padding,
                      int64_t dilation, bool ceil_mode) {
  const int64_t rest = size + 2 * padding - dilation * (kernel - 1) - 1;
  // With ceil_mode one window may be larger than the image.
  const int64_t free = rest + (ceil_mode ? stride - 1 : 0);
  int64_t out = free < 0 ? 0 : free / stride + 1;
  // Each window starts in the image or in the padding before it.
  if (ceil_mode && (out - 1) * stride >= size + padding) out--;
  return {size, out, kernel, stride, padding, dilation, false};
}

void run_part(const MaxPoolArgs& args, const KernelTable& table, int thread, int threads) {
  const int64_t rows = args.batch * args.h.out;
  const auto [begin, end] = share_of(rows, 1, thread, threads);
  if (begin == end || args.w.out == 0 || args.channels == 0) return;
  MaxRows runner(args, table);
  for (int64_t r = begin; r < end; r++) runner.row(r / args.h.out, r % args.h.out);
}

// A share is a range of (output row, block of channels): rows in part, whole rows, a row in part.
void run_part(const AvgPoolArgs& args, const KernelTable& table, int thread, int threads) {
  const PoolAxis &h = args.h, &w = args.w;
  const int64_t c = args.channels, blocks = blocks_of(c), row_bytes = w.size * args.x_step;
  const auto [begin, end] = share_of(args.batch * h.out * blocks, 1, thread, threads);
  if (begin == end || w.out == 0) return;
  const std::vector<WindowRun> runs = runs_of(w, args.count_include_pad);
  MeanRun mean{};
  mean.end = end_of(args);
  mean.row_stride = row_bytes;
  mean.pixel_stride = args.x_step;
  mean.out_step = args.out_step;
  Requantize map = args.map;
  for (int64_t unit = begin; unit < end;) {
    const int64_t row = unit / blocks, block = unit % blocks;
    const int64_t next = std::min(end, (row + 1) * blocks);
    const int64_t c0 = block * kBlock, c1 = std::min(c, (block + next - unit) * kBlock);
    const Window tall = window_of(h, row % h.out, args.count_include_pad);
    const uint8_t* const x = args.x + (row / h.out * h.size + tall.first) * row_bytes + c0;
    for (const WindowRun& run : runs) {
      mean.x = x + run.window.first * args.x_step;
      mean.rows = tall.last - tall.first;
      mean.pixels = run.window.last - run.window.first;
      if (mean.pixels == w.size) {  // the rows of such a window lie side by side
        mean.pixels *= mean.rows;
        mean.rows = 1;
      }
      mean.outputs = run.count;
      mean.step = run.step * args.x_step;
      mean.n = c1 - c0;
      mean.out = args.out + (row * w.out + run.begin) * args.out_step + c0;
      map.multiplier =
          args.map.multiplier / static_cast<float>(tall.divisor * run.window.divisor);
      table.mean(mean, map);
    }
    unit = next;
  }
}

Work work_of(const MaxPoolArgs& args) {
  const int64_t rows = args.batch * args.h.out;
  const int64_t line = args.w.size * args.h.kernel + args.w.out * args.w.kernel;
  return {rows * line * args.channels, rows};
}

Work work_of(const AvgPoolArgs& args) {
  const int64_t rows = args.batch * args.h.out;
  if (rows == 0 || args.w.out == 0) return {0, 0};
  const Window tall = window_of(args.h, 0, true), wide = window_of(args.w, 0, true);
  const int64_t taps = tall.divisor * wide.divisor;
  return {rows * args.w.out * args.channels * (taps + 4), rows * blocks_of(args.channels)};
}

}  // namespace fastinfer
