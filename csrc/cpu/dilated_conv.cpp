#include "dilated_conv.h"

#include <algorithm>
#include <cstring>

#include "copy_pixels.h"
#include "scratch.h"

namespace fastinfer {
namespace {

struct LinesScratch;
struct RunsScratch;

// Copied lines of a thread: as many as there are weights, which then pass few times, but no more.
constexpr int64_t kMostLineBytes = 8 << 20;
// Of a whole image, for kernels that pass all of it with the weights of a panel at a time.
constexpr int64_t kMostImageBytes = 32 << 20;
// Below so many rows a tile loads of weights count for more than the taps that are left out.
constexpr int64_t kLeastTileRows = 7;

bool takes_tiles(const PackedHeader& h) {
  return static_cast<GemmForm>(h.form) == GemmForm::kTiles;
}

Range all_pixels(const ConvGeometry& g) { return {0, g.out_width}; }

}  // namespace

bool DilatedConv::suits(const PackedView& view, const ConvGeometry& g) {
  const PackedHeader& h = *view.header;
  // With a horizontal step of 1 a kernel row is one run, which DirectConv reads.
  if (g.dilation_h <= 1 || g.dilation_w <= 1 || g.out_width <= 1) return false;
  if (takes_tiles(h)) {
    return splits_into_taps(h) && g.kh * frame_of(h, g).line_bytes <= row_block_bytes(h);
  }
  if (static_cast<GemmForm>(h.form) != GemmForm::kRows || h.x_zero_point != 0) return false;
  const EvenTiles tiles(g.out_width, view.table->family(GemmForm::kRows, h.nr).kernels.mr_max);
  return splits_into_taps(h) && tiles.rows >= kLeastTileRows &&
         (g.height + 1) * frame_of(h, g).line_bytes <= kMostImageBytes;
}

Work DilatedConv::work() const {
  return work_of(g_.batch * g_.out_height);
}

// Whether some of these output pixels of a line find a real one under this column of the kernel.
bool DilatedConv::is_column_inside(const ConvGeometry& g, int64_t tap, const Range& pixels) {
  const int64_t column = tap * g.dilation_w - g.pad_w;
  return column + pixels.begin * g.stride_w < g.width &&
         column + (pixels.end - 1) * g.stride_w >= 0;
}

DilatedConv::Frame DilatedConv::frame_of(const PackedHeader& h, const ConvGeometry& g) {
  Frame frame{};
  for (int64_t tap = 0; tap < g.kw; tap++) {
    if (!is_column_inside(g, tap, all_pixels(g))) continue;
    const int64_t first = tap * g.dilation_w - g.pad_w;
    const int64_t last = first + (g.out_width - 1) * g.stride_w;
    frame.padding = std::max({frame.padding, -first, last - (g.width - 1)});
  }
  frame.chunk = takes_tiles(h) ? tile_steps(h.c_per_group / 4).quads * 4 : g.channels;
  frame.chunks = g.channels / frame.chunk;
  frame.step = takes_tiles(h) ? frame.chunk : apart(frame.chunk);
  // A line of padding serves taps that are outside whole, however far.
  const int64_t pixels = std::max(g.width + frame.padding, (g.out_width - 1) * g.stride_w + 1);
  frame.pitch = pixels * frame.step;
  frame.line_bytes = frame.pitch * frame.chunks;
  return frame;
}

int64_t DilatedConv::block_lines(const Frame& frame) const {
  if (!takes_tiles(h_)) return g_.out_height;
  const int64_t weights = std::min(view_.panels() * panel_bytes(view_), kMostLineBytes);
  const int64_t lines = std::max(row_block_bytes(h_), weights) / frame.line_bytes;
  if (lines >= g_.height) return g_.out_height;
  const int64_t free = lines - ((g_.kh - 1) * g_.dilation_h + 1);
  return std::max<int64_t>(0, free) / g_.stride_h + 1;
}

void DilatedConv::run_part(int thread, int threads) const {
  const auto [lines, panels] =
      gemm_share(view_, g_.batch * g_.out_height, g_.in_bytes(), thread, threads);
  if (panels.begin == panels.end) return;
  const Frame frame = frame_of(h_, g_);
  const int64_t most = block_lines(frame);
  for (int64_t l = lines.begin; l < lines.end;) {
    const int64_t image = l / g_.out_height, first = l % g_.out_height;
    const int64_t count = std::min({most, lines.end - l, g_.out_height - first});
    const Block block = copy_lines(frame, image, first, count);
    each_group(view_, panels, [&](int64_t p, int64_t end) {
      each_panels(view_, p, end, [&](int64_t panel, int64_t together) {
        run_panels(frame, block, panel, together, panel + together == panels.end);
      });
      look_up_panels(view_, output_, p, end, l * g_.out_width, (l + count) * g_.out_width);
    });
    l += count;
  }
  if (view_.table->finish) view_.table->finish();
}

DilatedConv::Block DilatedConv::copy_lines(const Frame& frame, int64_t image, int64_t first,
                                           int64_t count) const {
  const int64_t top = std::max<int64_t>(0, first * g_.stride_h - g_.pad_h);
  const int64_t last = (first + count - 1) * g_.stride_h - g_.pad_h + (g_.kh - 1) * g_.dilation_h;
  const int64_t lines = std::max<int64_t>(0, std::min(g_.height - 1, last) - top + 1);
  const int64_t before = frame.padding * frame.step, inside = g_.width * frame.step;
  uint8_t* const memory = scratch<LinesScratch>(before + (lines + 1) * frame.line_bytes);
  std::memset(memory, fill_, static_cast<size_t>(before));
  uint8_t* to = memory + before;
  for (int64_t y = top; y < top + lines; y++) {
    const uint8_t* from = x_ + (image * g_.height + y) * g_.width * g_.pixel_step;
    for (int64_t c = 0; c < frame.chunks; c++, to += frame.pitch, from += frame.chunk) {
      copy_pixels(to, frame.step, from, g_.pixel_step, frame.chunk, g_.width);
      std::memset(to + inside, fill_, static_cast<size_t>(frame.pitch - inside));
    }
  }
  std::memset(to, fill_, static_cast<size_t>(frame.line_bytes));
  return {memory + before, image, first, count, top, lines};
}

// Where the taps of an output line's pixels lie, and their weights in a panel; both are this thread's until
// its next call.
void DilatedConv::set_runs(const Frame& frame, const Block& block, int64_t line,
                           const Range& pixels, GemmTiles& run) const {
  const int64_t taps = g_.kh * g_.kw;
  auto* offsets = reinterpret_cast<int32_t*>(
      scratch<RunsScratch>(2 * taps * static_cast<int64_t>(sizeof(int32_t))));
  int32_t* const weights = offsets + taps;
  const int64_t tap_bytes = run.panel_bytes / taps, padding = block.lines * frame.line_bytes;
  run.runs = 0;
  for (int64_t i = 0; i < g_.kh; i++) {
    const int64_t y = line * g_.stride_h - g_.pad_h + i * g_.dilation_h;
    for (int64_t j = 0; j < g_.kw; j++) {
      const bool is_inside = y >= 0 && y < g_.height && is_column_inside(g_, j, pixels);
      if (!is_inside && fill_ == 0) continue;
      const int64_t column = j * g_.dilation_w - g_.pad_w;
      const int64_t at =
          is_inside ? (y - block.top) * frame.line_bytes + column * frame.step : padding;
      offsets[run.runs] = static_cast<int32_t>(at);
      weights[run.runs] = static_cast<int32_t>((i * g_.kw + j) * tap_bytes);
      run.runs++;
    }
  }
  run.offsets = offsets;
  run.run_weights = weights;
}

// is_last: no panels follow them.
void DilatedConv::run_panels(const Frame& frame, const Block& block, int64_t p, int64_t panels,
                             bool is_last) const {
  const auto form = static_cast<GemmForm>(h_.form);
  const GemmKernels& kernels = view_.table->family(form, h_.nr).kernels;
  GemmTiles run = panel_tiles(view_, p);
  run.panels = panels;
  run.row_stride = g_.stride_w * frame.step;
  run.step_bytes = frame.pitch;
  run.singles = h_.c_per_group / 4;
  run.step_quads = static_cast<int>(frame.chunk / 4);
  const int64_t near = g_.kh * frame.line_bytes;
  run.streams_weight = panels > 1 && near + run.panel_bytes > kNearBytes;
  const EvenTiles tiles(g_.out_width, kernels.mr_max);
  run.runs = static_cast<int>(g_.kh * g_.kw);
  if (!is_last) fetch_panel(run, view_, p + panels, block.count * tiles.count);
  const int64_t group = p / h_.panels_per_group;
  const int64_t group_bytes = takes_tiles(h_) ? h_.c_per_group / frame.chunk * frame.pitch
                                              : int64_t{h_.c_per_group};
  int64_t m = (block.image * g_.out_height + block.first) * g_.out_width;
  for (int64_t line = block.first; line < block.first + block.count; line++) {
    run.a = block.base + group * group_bytes;
    if (takes_tiles(h_)) set_runs(frame, block, line, all_pixels(g_), run);
    int64_t pixel = 0;
    tiles.each(run, [&] {
      if (takes_tiles(h_)) {
        kernels.kernel[run.rows - 1](run, panel_epilogue(view_, output_, p, m));
        m += run.tiles * run.rows;
        return;
      }
      GemmTiles one = run;
      one.tiles = 1;
      for (int64_t i = 0; i < run.tiles; i++, pixel += run.rows, m += run.rows) {
        set_runs(frame, block, line, {pixel, pixel + run.rows}, one);
        kernels.kernel[run.rows - 1](one, panel_epilogue(view_, output_, p, m));
        fetched(one);
        one.a += run.step;
      }
      run.ahead = one.ahead;
    });
  }
}

}  // namespace fastinfer
