#include "depthwise_driver.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "copy_pixels.h"
#include "scratch.h"
#include "work.h"

namespace fastinfer {
namespace {

// One thread's share of a depthwise convolution: whole output rows, one or two at once.
//
// The input rows an output row needs are kept in a ring, each with its padding left and right, so
// every pixel of a row is computed alike and whole-vector loads stay inside the ring. Results whose
// pixels lie apart are computed side by side first, too: blocks may span pixels, or pass their end.
class RowRunner {
 public:
  RowRunner(const PackedView& view, const ConvGeometry& g, const uint8_t* x, int32_t fill,
            const GemmOutput& output)
      : view_(view), h_(*view.header), g_(g), x_(x), fill_(fill), output_(output) {
    const KernelTable& table = *view.table;
    groups_ = (h_.k + table.depthwise_taps - 1) / table.depthwise_taps;
    by_columns_ = lies_by_columns(table.depthwise_taps, g.kh, g.kw);
    if (by_columns_ && g.dilation_h == 1 && g.stride_h <= 2 && output.out_u8 != nullptr &&
        !h_.has(kFlagUnbounded)) {
      most_rows_ = 2;
    }
    pixels_ = g.stride_w == 1 ? h_.pixels : 1;
    slots_ = (g.kh - 1) * g.dilation_h + 1 + (most_rows_ - 1) * g.stride_h;
    row_bytes_ = (g.width + 2 * g.pad_w) * g.channels;
    struct Ring;
    // One more row stands for those above and below the image.
    ring_ = scratch<Ring>((slots_ + 1) * row_bytes_ + h_.nr);
    std::memset(ring_ + slots_ * row_bytes_, fill, static_cast<size_t>(row_bytes_));
    held_.assign(static_cast<size_t>(slots_), -1);
    struct Results;
    if (is_apart()) results_ = scratch<Results>(most_rows_ * g.out_width * g.channels);
  }

  // Output rows from..to - 1, counted over all images.
  void rows(int64_t from, int64_t to) {
    while (from < to) {
      const int64_t oy = from % g_.out_height;
      const int64_t count = std::min({most_rows_, to - from, g_.out_height - oy});
      rows_at(from / g_.out_height, oy, count);
      from += count;
    }
  }

 private:
  void rows_at(int64_t image, int64_t oy, int64_t count) {
    rows_ = count;
    find_taps(image, oy * g_.stride_h - g_.pad_h);
    const int64_t pixel = (image * g_.out_height + oy) * g_.out_width;
    run_pixels(pixel, 0, pixels_, g_.out_width / pixels_);
    if (const int64_t rest = g_.out_width % pixels_) {
      run_pixels(pixel, g_.out_width - rest, rest, 1);
    }
    uint8_t* const out = output_.out_u8 + pixel * output_.ldc;
    uint8_t* const results = is_apart() ? results_ : out;
    if (h_.table) {
      view_.table->lookup(results, results, count * row_results(), view_.lookup_table());
    }
    if (is_apart()) {
      copy_pixels(out, output_.ldc, results, g_.channels, g_.channels, count * g_.out_width);
    }
  }

  // Only uint8 results do.
  bool is_apart() const { return output_.ldc != g_.channels; }

  int64_t row_results() const { return g_.out_width * g_.channels; }

  // Sets the taps of the rows' first pixels; y: the input row of the first tap.
  void find_taps(int64_t image, int64_t y) {
    const int64_t step = g_.dilation_w * g_.channels;
    taps_.clear();
    if (!by_columns_) {
      for (int64_t i = 0; i < g_.kh; i++) {
        const uint8_t* line = padded_row(image, y + i * g_.dilation_h);
        for (int64_t j = 0; j < g_.kw; j++) taps_.push_back(line + j * step);
      }
      // Those that fill the last group have weight 0.
      taps_.resize(static_cast<size_t>(groups_ * view_.table->depthwise_taps), ring_);
      return;
    }
    // A lone row's fourth has weight 0 and is any row.
    const int64_t last = rows_ == 2 ? 3 : 2;
    const uint8_t* lines[4];
    for (int64_t i = 0; i < 4; i++) lines[i] = padded_row(image, y + std::min(i, last) * g_.dilation_h);
    for (int64_t j = 0; j < g_.kw; j++) {
      for (const uint8_t* line : lines) taps_.push_back(line + j * step);
    }
    if (rows_ == 2 && g_.stride_h == 2) {
      const uint8_t* fifth = padded_row(image, y + 4);
      for (int64_t j = 0; j < 4; j++) taps_.push_back(fifth + std::min(j, g_.kw - 1) * step);
    }
  }

  const uint8_t* padded_row(int64_t image, int64_t y) {
    if (y < 0 || y >= g_.height) return ring_ + slots_ * row_bytes_;
    const int64_t slot = y % slots_, id = image * g_.height + y;
    uint8_t* to = ring_ + slot * row_bytes_;
    int64_t& held = held_[static_cast<size_t>(slot)];
    if (held != id) {
      const int64_t pad = g_.pad_w * g_.channels, width = g_.width * g_.channels;
      std::memset(to, fill_, static_cast<size_t>(pad));
      copy_pixels(to + pad, g_.channels, x_ + id * g_.width * g_.pixel_step, g_.pixel_step,
                  g_.channels, g_.width);
      std::memset(to + pad + width, fill_, static_cast<size_t>(pad));
      held = id;
    }
    return to;
  }

  // `count` times `pixels` pixels of the row that starts at output pixel `row`, from its pixel `ox`
  // on.
  void run_pixels(int64_t row, int64_t ox, int64_t pixels, int64_t count) {
    const int64_t lanes = pixels * g_.channels;
    // Backwards: see may_pass.
    for (int64_t block = (lanes + h_.nr - 1) / h_.nr; block-- > 0;) {
      run_block(block, row + ox, ox * g_.stride_w * g_.channels, lanes, count);
    }
  }

  // One block of `lanes` channels of neighbouring pixels, `count` times, from output pixel `pixel`
  // on, `from` bytes into the padded input rows.
  void run_block(int64_t block, int64_t pixel, int64_t from, int64_t lanes, int64_t count) {
    const int64_t c0 = block * h_.nr;
    block_taps_.clear();
    for (const uint8_t* tap : taps_) block_taps_.push_back(tap + from + c0);
    DepthwiseRun run{};
    run.taps = block_taps_.data();
    run.tap_step = g_.stride_w * lanes;
    run.pixels = static_cast<int>(count);
    run.tap_groups = static_cast<int>(taps_.size()) / view_.table->depthwise_taps;
    run.rows = static_cast<int>(rows_);
    run.stride_h = static_cast<int>(g_.stride_h);
    run.row_bytes = row_results();
    run.weight = view_.section<uint8_t>(h_.weight) +
                 block * groups_ * view_.table->depthwise_taps * h_.nr *
                     view_.table->depthwise_bytes;
    run.may_pass = c0 + h_.nr <= 2 * lanes;
    Epilogue e = view_.epilogue(c0);
    e.n_valid = static_cast<int>(std::min<int64_t>(h_.nr, lanes - c0));
    e.ldc = lanes;
    const int64_t at = pixel * g_.channels + c0;
    if (output_.out_u8) e.out_u8 = output_.out_u8 + at;
    if (is_apart()) e.out_u8 = results_ + pixel % g_.out_width * g_.channels + c0;
    if (output_.out_f32) e.out_f32 = output_.out_f32 + at;
    if (output_.residual_u8) e.residual_u8 = output_.residual_u8 + at;
    if (output_.residual_f32) e.residual_f32 = output_.residual_f32 + at;
    e.row_scale = output_.row_scale;
    e.row_zero_point = output_.row_zero_point;
    view_.table->depthwise(run, e);
  }

  const PackedView& view_;
  const PackedHeader& h_;
  const ConvGeometry& g_;
  const uint8_t* x_;
  int32_t fill_;
  const GemmOutput& output_;
  int64_t groups_, slots_, row_bytes_;
  bool by_columns_;          // see lies_by_columns
  int64_t most_rows_ = 1;    // that are computed at once
  int64_t rows_ = 1;         // that are now
  int64_t pixels_;  // that share blocks
  uint8_t* ring_;
  uint8_t* results_ = nullptr;  // of the rows, side by side
  std::vector<int64_t> held_;  // the input row in each slot, counted over all images; -1: none
  std::vector<const uint8_t*> taps_, block_taps_;
};

}  // namespace

Work DepthwiseDriver::work() const {
  // A depthwise product costs about four times a GEMM's.
  return {g_.out_pixels() * g_.channels * view_.header->k * 4, g_.batch * g_.out_height};
}

void DepthwiseDriver::run_part(int thread, int threads) const {
  const auto [r0, r1] = share_of(g_.batch * g_.out_height, thread, threads);
  if (r0 == r1) return;
  RowRunner runner(view_, g_, x_, fill_, output_);
  runner.rows(r0, r1);
}

}  // namespace fastinfer
