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

}  // namespace

bool DilatedConv::suits(const PackedView& view, const ConvGeometry& g) {
  const PackedHeader& h = *view.header;
  // With a horizontal step of 1 a kernel row is one run, which DirectConv reads.
  return static_cast<GemmForm>(h.form) == GemmForm::kTiles && g.dilation_h > 1 &&
         g.dilation_w > 1 && g.out_width > 1 && splits_into_taps(h) &&
         g.kh * frame_of(h, g).line_bytes <= row_block_bytes(h);
}

Work DilatedConv::work() const {
  return {g_.out_pixels() * int64_t{h_.n} * h_.k,
          std::max(g_.batch * g_.out_height, view_.panels())};
}

// Whether some output pixel of a line finds a real one under this column of the kernel.
bool DilatedConv::is_column_inside(const ConvGeometry& g, int64_t tap) {
  const int64_t first = tap * g.dilation_w - g.pad_w;
  return first < g.width && first + (g.out_width - 1) * g.stride_w >= 0;
}

DilatedConv::Frame DilatedConv::frame_of(const PackedHeader& h, const ConvGeometry& g) {
  Frame frame{};
  for (int64_t tap = 0; tap < g.kw; tap++) {
    if (!is_column_inside(g, tap)) continue;
    const int64_t first = tap * g.dilation_w - g.pad_w;
    const int64_t last = first + (g.out_width - 1) * g.stride_w;
    frame.padding = std::max({frame.padding, -first, last - (g.width - 1)});
  }
  frame.chunk = tile_steps(h.c_per_group / 4).quads * 4;
  frame.chunks = g.channels / frame.chunk;
  // A line of padding serves taps that are outside whole, however far.
  const int64_t pixels = std::max(g.width + frame.padding, (g.out_width - 1) * g.stride_w + 1);
  frame.pitch = pixels * frame.chunk;
  frame.line_bytes = frame.pitch * frame.chunks;
  return frame;
}

int64_t DilatedConv::block_lines(const Frame& frame) const {
  const int64_t weights = std::min(view_.panels() * panel_bytes(h_), kMostLineBytes);
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
        run_panels(frame, block, panel, together);
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
  const int64_t before = frame.padding * frame.chunk, inside = g_.width * frame.chunk;
  uint8_t* const memory = scratch<LinesScratch>(before + (lines + 1) * frame.line_bytes);
  std::memset(memory, fill_, static_cast<size_t>(before));
  uint8_t* to = memory + before;
  for (int64_t y = top; y < top + lines; y++) {
    const uint8_t* from = x_ + (image * g_.height + y) * g_.width * g_.pixel_step;
    for (int64_t c = 0; c < frame.chunks; c++, to += frame.pitch, from += frame.chunk) {
      copy_pixels(to, frame.chunk, from, g_.pixel_step, frame.chunk, g_.width);
      std::memset(to + inside, fill_, static_cast<size_t>(frame.pitch - inside));
    }
  }
  std::memset(to, fill_, static_cast<size_t>(frame.line_bytes));
  return {memory + before, image, first, count, top, lines};
}

// Where an output line's taps lie, and their weights in a panel; both are this thread's until its next
// call.
void DilatedConv::set_runs(const Frame& frame, const Block& block, int64_t line,
                           GemmTiles& run) const {
  const int64_t taps = g_.kh * g_.kw;
  auto* offsets = reinterpret_cast<int32_t*>(
      scratch<RunsScratch>(2 * taps * static_cast<int64_t>(sizeof(int32_t))));
  int32_t* const weights = offsets + taps;
  const int64_t tap_bytes = run.panel_bytes / taps, padding = block.lines * frame.line_bytes;
  run.runs = 0;
  for (int64_t i = 0; i < g_.kh; i++) {
    const int64_t y = line * g_.stride_h - g_.pad_h + i * g_.dilation_h;
    for (int64_t j = 0; j < g_.kw; j++) {
      const bool is_inside = y >= 0 && y < g_.height && is_column_inside(g_, j);
      if (!is_inside && fill_ == 0) continue;
      const int64_t column = j * g_.dilation_w - g_.pad_w;
      const int64_t at =
          is_inside ? (y - block.top) * frame.line_bytes + column * frame.chunk : padding;
      offsets[run.runs] = static_cast<int32_t>(at);
      weights[run.runs] = static_cast<int32_t>((i * g_.kw + j) * tap_bytes);
      run.runs++;
    }
  }
  run.offsets = offsets;
  run.run_weights = weights;
}

void DilatedConv::run_panels(const Frame& frame, const Block& block, int64_t p,
                             int64_t panels) const {
  const GemmKernels& kernels = view_.table->family(GemmForm::kTiles, h_.nr).kernels;
  GemmTiles run = panel_tiles(view_, p);
  run.panels = panels;
  run.row_stride = g_.stride_w * frame.chunk;
  run.step_bytes = frame.pitch;
  run.singles = h_.c_per_group / 4;
  run.step_quads = static_cast<int>(frame.chunk / 4);
  const int64_t near = g_.kh * frame.line_bytes;
  run.streams_weight = panels > 1 && near + run.panel_bytes > kNearBytes;
  const EvenTiles tiles(g_.out_width, kernels.mr_max);
  int64_t m = (block.image * g_.out_height + block.first) * g_.out_width;
  for (int64_t line = block.first; line < block.first + block.count; line++) {
    set_runs(frame, block, line, run);
    run.a = block.base + p / h_.panels_per_group * (h_.c_per_group / frame.chunk) * frame.pitch;
    tiles.each(run, [&] {
      kernels.kernel[run.rows - 1](run, panel_epilogue(view_, output_, p, m));
      m += run.tiles * run.rows;
    });
  }
}

}  // namespace fastinfer
