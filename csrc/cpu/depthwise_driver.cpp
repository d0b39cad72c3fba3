#include "depthwise_driver.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "copy_pixels.h"
#include "scratch.h"
#include "sliding_depthwise.h"
#include "work.h"

namespace fastinfer {
namespace {

// One thread's share of a depthwise convolution: whole output rows, one or two at once.
//
// The input rows an output row needs are kept in a ring, each with its padding left and right, so that
// its pixels are computed alike and whole-vector loads stay inside the ring. Where the stride leaves a
// byte read too seldom for that, pixels that need no padding are computed in place, and only the ends
// of a row are copied (96x112 3x3/2: 115 to 91 us, but 672x14 5x5/2: 25 to 35; Granite Rapids,
// 2026-11). Results whose pixels lie apart are computed side by side first, too: blocks may span
// pixels, or pass their end.
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
    if (2 * g.stride_w > g.kw && g.stride_w > 1 && g.is_dense() &&
        g.width * g.channels >= h_.nr) {
      find_inside();
    }
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
    const int64_t y = oy * g_.stride_h - g_.pad_h;
    const int64_t pixel = (image * g_.out_height + oy) * g_.out_width;
    run_span(image, y, pixel, 0, inside_from_, false);
    run_span(image, y, pixel, inside_from_, inside_to_, true);
    run_span(image, y, pixel, inside_to_, g_.out_width, false);
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

  // Sets which output pixels of a row are read in place.
  void find_inside() {
    const int64_t last = g_.width - 1 - (g_.kw - 1) * g_.dilation_w + g_.pad_w;
    if (last < 0) return;
    const int64_t from = (g_.pad_w + g_.stride_w - 1) / g_.stride_w;
    const int64_t to = std::min(last / g_.stride_w + 1, g_.out_width);
    if (from >= to) return;
    inside_from_ = from;
    inside_to_ = to;
  }

  // Output pixels from..to - 1 of the rows whose first input row is `y`; `pixel` is their first one.
  void run_span(int64_t image, int64_t y, int64_t pixel, int64_t from, int64_t to, bool inside) {
    if (from >= to) return;
    find_taps(image, y, from, inside);
    const int64_t groups = (to - from) / pixels_, rest = (to - from) % pixels_;
    if (groups > 0) run_pixels(pixel + from, 0, pixels_, groups);
    if (rest > 0) run_pixels(pixel + to - rest, (to - from - rest), rest, 1);
  }

  // Sets the taps of the rows' output pixel `ox`; y: the input row of the first tap.
  void find_taps(int64_t image, int64_t y, int64_t ox, bool inside) {
    const int64_t step = g_.dilation_w * g_.channels;
    const auto line_at = [&](int64_t row) {
      return inside ? inner_row(image, row, ox) : padded_row(image, row, ox);
    };
    taps_.clear();
    if (!by_columns_) {
      for (int64_t i = 0; i < g_.kh; i++) {
        const uint8_t* line = line_at(y + i * g_.dilation_h);
        for (int64_t j = 0; j < g_.kw; j++) taps_.push_back(line + j * step);
      }
      // Those that fill the last group have weight 0.
      taps_.resize(static_cast<size_t>(groups_ * view_.table->depthwise_taps), taps_.front());
      return;
    }
    // A lone row's fourth has weight 0 and is any row.
    const int64_t last = rows_ == 2 ? 3 : 2;
    const uint8_t* lines[4];
    for (int64_t i = 0; i < 4; i++) lines[i] = line_at(y + std::min(i, last) * g_.dilation_h);
    for (int64_t j = 0; j < g_.kw; j++) {
      for (const uint8_t* line : lines) taps_.push_back(line + j * step);
    }
    if (rows_ == 2 && g_.stride_h == 2) {
      const uint8_t* fifth = line_at(y + 4);
      for (int64_t j = 0; j < 4; j++) taps_.push_back(fifth + std::min(j, g_.kw - 1) * step);
    }
  }

  bool is_in_image(int64_t y) const { return y >= 0 && y < g_.height; }

  // The first input of output pixel `ox`, which needs no padding left or right, in row `y`. Loads pass
  // a pixel's end, into the next row; the last row of x is one of the ring's.
  const uint8_t* inner_row(int64_t image, int64_t y, int64_t ox) {
    const int64_t id = image * g_.height + y;
    if (!is_in_image(y) || id + 1 == g_.batch * g_.height) return padded_row(image, y, ox);
    return x_ + (id * g_.width + ox * g_.stride_w - g_.pad_w) * g_.channels;
  }

  // The same with padding, in the ring.
  const uint8_t* padded_row(int64_t image, int64_t y, int64_t ox) {
    const int64_t at = ox * g_.stride_w * g_.channels;
    if (!is_in_image(y)) return ring_ + slots_ * row_bytes_ + at;
    const int64_t slot = y % slots_, id = image * g_.height + y;
    uint8_t* to = ring_ + slot * row_bytes_;
    int64_t& held = held_[static_cast<size_t>(slot)];
    if (held != id) {
      const int64_t pad = g_.pad_w * g_.channels;
      std::memset(to, fill_, static_cast<size_t>(pad));
      if (inside_from_ < inside_to_ && id + 1 != g_.batch * g_.height) {
        // Pixels that outputs before inside_from_ and from inside_to_ on read.
        const int64_t left = (inside_from_ - 1) * g_.stride_w + (g_.kw - 1) * g_.dilation_w + 1;
        copy_row(to, id, 0, left - g_.pad_w);
        copy_row(to, id, inside_to_ * g_.stride_w - g_.pad_w, g_.width);
      } else {
        copy_row(to, id, 0, g_.width);
      }
      std::memset(to + pad + g_.width * g_.channels, fill_, static_cast<size_t>(pad));
      held = id;
    }
    return to + at;
  }

  // Copies the pixels from..to - 1 of input row `id` into their places in a padded row.
  void copy_row(uint8_t* row, int64_t id, int64_t from, int64_t to) const {
    from = std::max<int64_t>(from, 0);
    to = std::min(to, g_.width);
    if (from >= to) return;
    copy_pixels(row + (g_.pad_w + from) * g_.channels, g_.channels,
                x_ + (id * g_.width + from) * g_.pixel_step, g_.pixel_step, g_.channels, to - from);
  }

  // `count` times `pixels` pixels of the row, from output pixel `pixel` on, `ox` pixels after the one
  // of the taps.
  void run_pixels(int64_t pixel, int64_t ox, int64_t pixels, int64_t count) {
    const int64_t lanes = pixels * g_.channels;
    // Backwards: see may_pass.
    for (int64_t block = (lanes + h_.nr - 1) / h_.nr; block-- > 0;) {
      run_block(block, pixel, ox * g_.stride_w * g_.channels, lanes, count);
    }
  }

  // One block of `lanes` channels of neighbouring pixels, `count` times, from output pixel `pixel`
  // on, `from` bytes behind the taps.
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
  int64_t inside_from_ = 0, inside_to_ = 0;  // output pixels of a row that are read in place
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
  if (SlidingDepthwise::suits(view_, g_, output_)) {
    SlidingDepthwise(view_, g_, x_, fill_, output_).rows(r0, r1);
    return;
  }
  RowRunner runner(view_, g_, x_, fill_, output_);
  runner.rows(r0, r1);
}

}  // namespace fastinfer
