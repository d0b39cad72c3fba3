#include "direct_conv.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "column_run.h"
#include "copy_pixels.h"
#include "scratch.h"

namespace fastinfer {
namespace {

// Bytes that a kernel reads past the last pixel of a line: a run fills whole quads, or steps.
constexpr int64_t kRunSlack = kTileQuads * 4;
// Below so many rows a tile, loading weights costs more than copying windows, where these are copied
// for so many channels.
constexpr int64_t kFewRows = 12, kManyChannels = 128;
// Weights with zeros take less time to load, and their tiles are low in any case. Windows of one tap are
// copied once for all panels.
constexpr int64_t kFewSparseRows = 6;
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

// Output lines of a tile: two short ones where a tile has halves.
int64_t tile_lines(const PackedHeader& h, const ConvGeometry& g) {
  return static_cast<GemmForm>(h.form) == GemmForm::kTiles && g.out_width <= kHalfRows ? 2 : 1;
}

int64_t framed_line(const ConvGeometry& g) { return (g.width + 2 * g.pad_w) * g.channels; }

// What the lines of a tile take.
int64_t near_bytes(const PackedHeader& h, const ConvGeometry& g, int64_t lines) {
  if (h.has(kFlagColumns)) return lines * g.kh * framed_line(g);
  return input_lines(g, lines) * framed_line(g);
}

}  // namespace

bool DirectConv::suits(const PackedView& view, const ConvGeometry& g) {
  const PackedHeader& h = *view.header;
  const bool is_matrix = g.kh == 1 && g.kw == 1 && g.stride_h == 1 && g.stride_w == 1 &&
                         g.pad_h == 0 && g.pad_w == 0;
  const auto form = static_cast<GemmForm>(h.form);
  if (form == GemmForm::kGroups) return true;  // windows have one group's inputs
  if (h.has(kFlagColumns)) return g.dilation_w == 1 && near_bytes(h, g, 1) <= row_block_bytes(h);
  if (!reads_runs(form) || is_matrix || g.out_width == 0) return false;
  if (!is_row_run(h, g) && !splits_into_taps(h)) return false;
  const int64_t row_stride = g.stride_w * g.channels;
  // A register of a tile takes whole lines of cache, each once: sets do not matter there.
  if ((form == GemmForm::kRows && apart(row_stride) != row_stride) ||
      input_lines(g, 1) * framed_line(g) > row_block_bytes(h)) {
    return false;
  }
  const int64_t mr_max = view.table->family(form, h.nr).kernels.mr_max;
  const int64_t rows = g.out_width / ((g.out_width + mr_max - 1) / mr_max);
  const bool copies_much = form == GemmForm::kSparse && g.kh * g.kw > 1;
  const int64_t few = copies_much ? kFewSparseRows : kFewRows;
  return rows >= std::min(few, mr_max) ||
         (rows >= kLeastRows && view.n_per_group() <= kManyChannels);
}

bool DirectConv::reaches(const PackedHeader& h, const ConvGeometry& g) {
  if (static_cast<GemmForm>(h.form) != GemmForm::kGroups) return true;
  return input_lines(g, 1) * framed_line(g) <= std::numeric_limits<int32_t>::max();
}

DirectConv::DirectConv(const PackedView& view, const ConvGeometry& g, const uint8_t* x,
                       uint8_t fill, const GemmOutput& output)
    : ConvOperands(view, g, x, fill, output) {
  kernels_ = &view.table->family(static_cast<GemmForm>(h_.form), h_.nr).kernels;
  lines_ = tile_lines(h_, g);
  near_bytes_ = near_bytes(h_, g, lines_);
  if (by_columns()) {
    line_bytes_ = line_step_ = near_bytes(h_, g, 1);
    block_lines_ = std::max<int64_t>(1, row_block_bytes(h_) / line_bytes_);
    return;
  }
  line_bytes_ = framed_line(g);
  line_step_ = g.stride_h * line_bytes_;
  const int64_t free_lines = row_block_bytes(h_) / line_bytes_ - input_lines(g, 1);
  block_lines_ = std::max<int64_t>(0, free_lines) / g.stride_h + 1;
}

Work DirectConv::work() const {
  return work_of(g_.batch * g_.out_height);
}

void DirectConv::run_part(int thread, int threads) const {
  const auto [lines, panels] =
      gemm_share(view_, g_.batch * g_.out_height, g_.in_bytes(), thread, threads);
  part(lines, panels);
  if (view_.table->finish) view_.table->finish();
}

// Lines of all images times panels.
void DirectConv::part(const Range& lines, const Range& panels) const {
  if (panels.begin == panels.end) return;
  const GemmTiles window = window_runs();
  for (int64_t l = lines.begin; l < lines.end;) {
    const int64_t image = l / g_.out_height, first = l % g_.out_height;
    const int64_t count = std::min({block_lines_, lines.end - l, g_.out_height - first});
    const uint8_t* base =
        is_framed() ? frame(image, first, count)
                    : x_ + (image * g_.height + first * g_.stride_h) * line_bytes_;
    each_group(view_, panels, [&](int64_t p, int64_t end) {
      each_panels(view_, p, end, [&](int64_t panel, int64_t together) {
        const bool is_last = panel + together == panels.end;
        run_panels({base, image, first, count}, window, panel, together, is_last);
      });
      look_up_panels(view_, output_, p, end, l * g_.out_width, (l + count) * g_.out_width);
    });
    l += count;
  }
}

// The input lines of output lines [first, first + count), each with its padding.
const uint8_t* DirectConv::frame(int64_t image, int64_t first, int64_t count) const {
  if (by_columns()) return frame_columns(image, first, count);
  const int64_t lines = input_lines(g_, count), y0 = first * g_.stride_h - g_.pad_h;
  const auto side = static_cast<size_t>(g_.pad_w * g_.channels);
  const int64_t inside = g_.width * g_.channels;
  uint8_t* const base = scratch<FrameScratch>(lines * line_bytes_ + kRunSlack);
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

// The lines of each output line's windows column by column, with their padding.
const uint8_t* DirectConv::frame_columns(int64_t image, int64_t first, int64_t count) const {
  const int64_t column = g_.kh * g_.channels, inside = g_.width * g_.pixel_step;
  const int64_t space = count * line_bytes_ + kColumnSlack + kRunSlack;
  uint8_t* const base = scratch<FrameScratch>(space + inside);
  uint8_t* const outside = base + space;
  std::memset(outside, fill_, static_cast<size_t>(inside));
  const uint8_t* lines[kColumnLines];
  const ColumnLines columns(g_.kh, g_.channels);
  const auto side = static_cast<size_t>(g_.pad_w * column);
  uint8_t* to = base;
  for (int64_t l = first; l < first + count; l++, to += line_bytes_) {
    for (int64_t i = 0; i < g_.kh; i++) {
      const int64_t y = l * g_.stride_h - g_.pad_h + i * g_.dilation_h;
      const bool is_line = y >= 0 && y < g_.height;
      lines[i] = is_line ? x_ + (image * g_.height + y) * inside : outside;
    }
    std::memset(to, fill_, side);
    view_.table->columns(columns, {lines, g_.pixel_step, g_.width, to + side});
    std::memset(to + side + g_.width * column, fill_, side);
  }
  return base;
}

// Where the runs of a window lie; `offsets` are this thread's until its next call.
GemmTiles DirectConv::window_runs() const {
  const int64_t taps = is_row_run(h_, g_) ? 1 : g_.kw, rows = by_columns() ? 1 : g_.kh;
  auto* offsets = reinterpret_cast<int32_t*>(
      scratch<OffsetsScratch>(rows * taps * static_cast<int64_t>(sizeof(int32_t))));
  for (int64_t i = 0; i < rows; i++) {
    for (int64_t j = 0; j < taps; j++) {
      offsets[i * taps + j] = static_cast<int32_t>(i * g_.dilation_h * line_bytes_ +
                                                   j * g_.dilation_w * g_.channels);
    }
  }
  GemmTiles window{};
  window.row_stride = g_.stride_w * (by_columns() ? g_.kh : 1) * g_.channels;
  window.offsets = offsets;
  window.runs = static_cast<int>(rows * taps);
  window.singles = static_cast<int>(h_.run_quads() / taps);
  window.step_quads = tile_steps(window.singles).quads;
  return window;
}

// is_last: no panels follow them.
void DirectConv::run_panels(const Block& block, const GemmTiles& window, int64_t p,
                            int64_t panels, bool is_last) const {
  GemmTiles run = window;
  const GemmTiles panel = panel_tiles(view_, p);
  run.weight = panel.weight;
  run.picks = panel.picks;
  run.panel_bytes = panel.panel_bytes;
  run.panels = panels;
  run.streams_weight = panels > 1 && near_bytes_ + run.panel_bytes > kNearBytes;
  const int64_t width = g_.out_width;
  int64_t m = (block.image * g_.out_height + block.first) * width, y = 0;
  run.a = block.base + (joins_groups() ? p * h_.nr : p / h_.panels_per_group * h_.c_per_group);
  if (lines_ == 2) {
    run.tiles = block.count / 2;
    run.lines = 1;
    run.rows = static_cast<int>(2 * width);
    run.half = static_cast<int>(width);
    run.second = line_step_;
    run.step = 2 * line_step_;
    m = run_tiles(run, p, m);
    y = run.tiles * 2;
    run.a += y * line_step_;
  }
  const EvenTiles tiles(width, most_tile_rows(view_, width, g_.out_pixels()));
  if (!is_last) fetch_panel(run, view_, p + panels, block.count * tiles.count);
  // Kernels take several lines whose tiles are of one height.
  const int64_t together = tiles.longer == 0 ? block.count - y : 1;
  run.lines = together;
  run.line_step = line_step_;
  for (; y < block.count; y += together) {
    const uint8_t* const line = run.a;
    tiles.each(run, [&] { m = run_tiles(run, p, m); });
    run.a = line + line_step_;
  }
}

// Returns the row after the last one.
int64_t DirectConv::run_tiles(GemmTiles& run, int64_t p, int64_t m) const {
  if (run.tiles * run.lines == 0) return m;
  kernels_->kernel[run.rows - 1](run, panel_epilogue(view_, output_, p, m));
  fetched(run);
  return m + run.lines * run.tiles * run.rows;
}

}  // namespace fastinfer
