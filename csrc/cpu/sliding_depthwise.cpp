#include "sliding_depthwise.h"

#include <cstring>

#include "scratch.h"

namespace fastinfer {

namespace {

// Whether two neighbouring pixels fill a block. Their columns are twos of pixels, one pixel apart, and what
// is the last one of two results is the first one of the next two.
bool takes_twos(const PackedHeader& h, const ConvGeometry& g, const GemmOutput& output) {
  return g.stride_w == 1 && h.pixels == 2 && 2 * g.channels == h.nr && g.is_dense() &&
         output.ldc == g.channels;
}

}  // namespace

bool SlidingDepthwise::suits(const PackedView& view, const ConvGeometry& g,
                             const GemmOutput& output) {
  const PackedHeader& h = *view.header;
  const KernelTable& table = *view.table;
  const bool is_kernel = g.kh == 3 && g.kw == 3 && g.stride_w <= 2 && g.dilation_w == 1;
  const bool is_result = output.out_u8 != nullptr && output.residual_u8 == nullptr &&
                         !h.has(kFlagUnbounded) && (output.ldc == g.channels || !h.table);
  // A pixel's channels alone fill blocks so far that a column used three times pays for the rest; at a
  // stride of 2 no other way fills them better.
  const bool is_filled = g.stride_w == 2 || takes_twos(h, g, output) ||
                         4 * g.channels >= 3 * divide_up(g.channels, h.nr) * h.nr;
  // Loads that pass a row's end stay in the next one.
  const bool is_long = g.width * g.pixel_step >= h.nr;
  return table.depthwise_columns != nullptr && is_kernel && is_result && is_filled && is_long;
}

SlidingDepthwise::SlidingDepthwise(const PackedView& view, const ConvGeometry& g, const uint8_t* x,
                                   int32_t fill, const GemmOutput& output)
    : view_(view), h_(*view.header), g_(g), x_(x), fill_(fill), output_(output) {
  const int64_t row = g.width * g.pixel_step, room = row + h_.nr;
  struct Rows;
  uint8_t* const rows = scratch<Rows>(2 * room);
  std::memset(rows, fill, static_cast<size_t>(room));
  fill_row_ = rows;
  last_row_ = x + (g.batch * g.height - 1) * row;
  if (g.channels % h_.nr == 0) return;
  std::memcpy(rows + room, last_row_, static_cast<size_t>(row - g.pixel_step + g.channels));
  last_row_ = rows + room;
}

const uint8_t* SlidingDepthwise::row_at(int64_t image, int64_t y) const {
  if (y < 0 || y >= g_.height) return fill_row_;
  const int64_t id = image * g_.height + y;
  return id + 1 == g_.batch * g_.height ? last_row_ : x_ + id * g_.width * g_.pixel_step;
}

void SlidingDepthwise::rows(int64_t from, int64_t to) {
  const int64_t groups = divide_up(h_.k, view_.table->depthwise_taps);
  const int64_t block_bytes = groups * view_.table->depthwise_taps * h_.nr;
  const auto* const weight = view_.section<uint8_t>(h_.weight);
  ColumnsRun run{};
  const bool by_twos = takes_twos(h_, g_, output_);
  run.step = g_.pixel_step;
  run.span = by_twos ? 2 : 1;
  run.pixels = divide_up(g_.out_width, run.span);
  run.stride = static_cast<int>(g_.stride_w) * run.span;
  run.pad = g_.pad_w;
  run.width = g_.width;
  run.fill = fill_;
  for (int64_t row = from; row < to; row++) {
    const int64_t image = row / g_.out_height, y = row % g_.out_height * g_.stride_h - g_.pad_h;
    const uint8_t* lines[3];
    for (int64_t i = 0; i < 3; i++) lines[i] = row_at(image, y + i * g_.dilation_h);
    uint8_t* const out = output_.out_u8 + row * g_.out_width * output_.ldc;
    // Backwards: a block may pass the end of its pixel, into what the blocks before it make later.
    for (int64_t block = divide_up(g_.channels, h_.nr); block-- > 0;) {
      const int64_t c0 = block * h_.nr;
      for (int i = 0; i < 3; i++) run.rows[i] = lines[i] + c0;
      run.weight = weight + block * block_bytes;
      run.may_pass = output_.ldc == g_.channels && c0 + h_.nr <= 2 * g_.channels;
      Epilogue e = view_.epilogue(c0);
      e.n_valid = static_cast<int>(std::min<int64_t>(h_.nr, g_.channels - c0));
      if (by_twos && g_.out_width % 2 == 0) e.n_valid = h_.nr;
      e.ldc = output_.ldc * run.span;
      e.out_u8 = out + c0;
      view_.table->depthwise_columns(run, e);
    }
    if (h_.table) {
      view_.table->lookup(out, out, g_.out_width * g_.channels, view_.lookup_table());
    }
  }
}

}  // namespace fastinfer
