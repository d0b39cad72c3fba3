#include "depthwise_driver.h"

#include <cstring>
#include <vector>

#include "copy_pixels.h"
#include "scratch.h"
#include "work.h"

namespace fastinfer {
namespace {

// One thread's share of a depthwise convolution: whole output rows.
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
    pixels_ = g.stride_w == 1 ? h_.pixels : 1;
    slots_ = (g.kh - 1) * g.dilation_h + 1;
    row_bytes_ = (g.width + 2 * g.pad_w) * g.channels;
    struct Ring;
    // One more row stands for those above and below the image.
    ring_ = scratch<Ring>((slots_ + 1) * row_bytes_ + h_.nr);
    std::memset(ring_ + slots_ * row_bytes_, fill, static_cast<size_t>(row_bytes_));
    held_.assign(static_cast<size_t>(slots_), -1);
    taps_.resize(static_cast<size_t>(int64_t{groups_} * table.depthwise_taps), ring_);
    block_taps_ = taps_;
    struct Results;
    if (is_apart()) results_ = scratch<Results>(g.out_width * g.channels);
  }

  void row(int64_t image, int64_t oy) {
    size_t t = 0;
    for (int64_t i = 0; i < g_.kh; i++) {
      const uint8_t* line = padded_row(image, oy * g_.stride_h - g_.pad_h + i * g_.dilation_h);
      for (int64_t j = 0; j < g_.kw; j++) taps_[t++] = line + j * g_.dilation_w * g_.channels;
    }
    const int64_t pixel = (image * g_.out_height + oy) * g_.out_width;
    run_pixels(pixel, 0, pixels_, g_.out_width / pixels_);
    if (const int64_t rest = g_.out_width % pixels_) {
      run_pixels(pixel, g_.out_width - rest, rest, 1);
    }
    uint8_t* const out = output_.out_u8 + pixel * output_.ldc;
    uint8_t* const results = is_apart() ? results_ : out;
    if (h_.table) {
      view_.table->lookup(results, results, g_.out_width * g_.channels, view_.lookup_table());
    }
    if (is_apart()) {
      copy_pixels(out, output_.ldc, results, g_.channels, g_.channels, g_.out_width);
    }
  }

 private:
  // Only uint8 results do.
  bool is_apart() const { return output_.ldc != g_.channels; }

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
    for (size_t t = 0; t < taps_.size(); t++) block_taps_[t] = taps_[t] + from + c0;
    DepthwiseRun run{};
    run.taps = block_taps_.data();
    run.tap_step = g_.stride_w * lanes;
    run.pixels = static_cast<int>(count);
    run.tap_groups = static_cast<int>(groups_);
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
  int64_t pixels_;  // that share blocks
  uint8_t* ring_;
  uint8_t* results_ = nullptr;  // of a row, side by side
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
  for (int64_t r = r0; r < r1; r++) runner.row(r / g_.out_height, r % g_.out_height);
}

}  // namespace fastinfer
