#include "direct_conv.h"

#include <algorithm>
#include <cstring>

#include "copy_pixels.h"
#include "scratch.h"

namespace fastinfer {
namespace {

// Bytes that a kernel reads past the last pixel of a line: a run fills whole quads.
constexpr int64_t kQuadSlack = 4;
// Below so many rows a tile, loading weights costs more than copying windows, where these are copied
// for so many channels.
constexpr int64_t kFewRows = 12, kManyChannels = 128;
// With fewer the windows are copied in any case.
constexpr int64_t kLeastRows = 5;

struct OffsetsScratch;
struct FrameScratch;

// Runs lie together over a whole kernel row, or over one tap.
bool is_row_run(const PackedHeader& h, const ConvGeometry& g) {
  return h.groups == 1 && g.dilation_w == 1;
}

int64_t input_lines(const ConvGeometry& g, int64_t lines) {
  return (lines - 1) * g.stride_h + (g.kh - 1) * g.dilation_h + 1;
}

int64_t framed_line(const ConvGeometry& g) { return (g.width + 2 * g.pad_w) * g.channels; }

}  // namespace

bool DirectConv::suits(const PackedView& view, const ConvGeometry& g) {
  const PackedHeader& h = *view.header;
  const bool is_matrix = g.kh == 1 && g.kw == 1 && g.stride_h == 1 && g.stride_w == 1 &&
                         g.pad_h == 0 && g.pad_w == 0;
  if (static_cast<GemmForm>(h.form) != GemmForm::kRows || is_matrix || g.out_width == 0) {
    return false;
  }
  if (!is_row_run(h, g) && h.c_per_group % 4 != 0) return false;
  const int64_t row_stride = g.stride_w * g.channels;
  if (apart(row_stride) != row_stride || input_lines(g, 1) * framed_line(g) > kRowBlockBytes) {
    return false;
  }
  const int64_t mr_max = view.table->family(GemmForm::kRows, h.nr).kernels.mr_max;
  const int64_t rows = g.out_width / ((g.out_width + mr_max - 1) / mr_max);
  return rows >= std::min(kFewRows, mr_max) ||
         (rows >= kLeastRows && view.n_per_group() <= kManyChannels);
}

DirectConv::DirectConv(const PackedView& view, const ConvGeometry& g, const uint8_t* x,
                       uint8_t fill, const GemmOutput& output)
    : view_(view), h_(*view.header), g_(g), x_(x), fill_(fill), output_(output) {
  kernels_ = &view.table->family(GemmForm::kRows, h_.nr).kernels;
  line_bytes_ = framed_line(g);
  const int64_t free_lines = kRowBlockBytes / line_bytes_ - input_lines(g, 1);
  block_lines_ = std::max<int64_t>(0, free_lines) / g.stride_h + 1;
}

Work DirectConv::work() const {
  return {g_.out_pixels() * int64_t{h_.n} * h_.k,
          std::max(g_.batch * g_.out_height, view_.panels())};
}

void DirectConv::run_part(int thread, int threads) const {
  const auto [lines, panels] =
      gemm_share(g_.batch * g_.out_height, view_.panels(), thread, threads);
  part(lines.begin, lines.end, panels.begin, panels.end);
}

// Lines [l0, l1) of all images times panels [p0, p1).
void DirectConv::part(int64_t l0, int64_t l1, int64_t p0, int64_t p1) const {
  if (p0 == p1) return;
  const GemmTiles window = window_runs();
  for (int64_t l = l0; l < l1;) {
    const int64_t image = l / g_.out_height, first = l % g_.out_height;
    const int64_t count = std::min({block_lines_, l1 - l, g_.out_height - first});
    const uint8_t* base =
        is_framed() ? frame(image, first, count)
                    : x_ + (image * g_.height + first * g_.stride_h) * line_bytes_;
    for (int64_t p = p0; p < p1; p++) run_panel({base, image, first, count}, window, p);
    for (int64_t p = p0; p < p1;) {
      const int64_t next = (p / h_.panels_per_group + 1) * h_.panels_per_group;
      const int64_t end = std::min(p1, next);
      look_up_panels(view_, output_, p, end, l * g_.out_width, (l + count) * g_.out_width);
      p = end;
    }
    l += count;
  }
}

// The input lines of output lines [first, first + count), each with its padding.
const uint8_t* DirectConv::frame(int64_t image, int64_t first, int64_t count) const {
  const int64_t lines = input_lines(g_, count), y0 = first * g_.stride_h - g_.pad_h;
  const auto side = static_cast<size_t>(g_.pad_w * g_.channels);
  const int64_t inside = g_.width * g_.channels;
  uint8_t* const base = scratch<FrameScratch>(lines * line_bytes_ + kQuadSlack);
  uint8_t* to = base;
  for (int64_t y = y0; y < y0 + lines; y++, to += line_bytes_) {
    if (y < 0 || y >= g_.height) {
      std::memset(to, fill_, static_cast<size_t>(line_bytes_));
      continue;
    }
    std::memset(to, fill_, side);
    copy_pixels(to + side, g_.channels, x_ + (image * g_.height + y) * g_.width * g_.pixel_step,
                g_.pixel_step, g_.channels, g_.width);
    std::memset(to + side + inside, fill_, side);
  }
  return base;
}

// Where the runs of a window lie; `offsets` are this thread's until its next call.
GemmTiles DirectConv::window_runs() const {
  const int64_t taps = is_row_run(h_, g_) ? 1 : g_.kw;
  auto* offsets = reinterpret_cast<int32_t*>(
      scratch<OffsetsScratch>(g_.kh * taps * static_cast<int64_t>(sizeof(int32_t))));
  for (int64_t i = 0; i < g_.kh; i++) {
    for (int64_t j = 0; j < taps; j++) {
      offsets[i * taps + j] = static_cast<int32_t>(i * g_.dilation_h * line_bytes_ +
                                                   j * g_.dilation_w * g_.channels);
    }
  }
  GemmTiles window{};
  window.row_stride = g_.stride_w * g_.channels;
  window.offsets = offsets;
  window.runs = static_cast<int>(g_.kh * taps);
  window.singles = static_cast<int>(h_.run_quads() / taps);
  return window;
}

void DirectConv::run_panel(const Block& block, const GemmTiles& window, int64_t p) const {
  GemmTiles run = window;
  run.weight = panel_tiles(view_, p).weight;
  const uint8_t* base = block.base + p / h_.panels_per_group * h_.c_per_group;
  const int64_t count = (g_.out_width + kernels_->mr_max - 1) / kernels_->mr_max;
  // Tiles of a line differ by at most one row; the first ones are the longer.
  const int64_t rows = g_.out_width / count, longer = g_.out_width - rows * count;
  int64_t m = (block.image * g_.out_height + block.first) * g_.out_width;
  for (int64_t y = 0; y < block.count; y++, base += g_.stride_h * line_bytes_) {
    run.a = base;
    for (const bool is_longer : {true, false}) {
      const int64_t height = rows + is_longer;
      run.tiles = is_longer ? longer : count - longer;
      if (run.tiles == 0) continue;
      kernels_->kernel[height - 1](run, panel_epilogue(view_, output_, p, m));
      run.a += run.tiles * height * run.row_stride;
      m += run.tiles * height;
    }
  }
}

}  // namespace fastinfer
