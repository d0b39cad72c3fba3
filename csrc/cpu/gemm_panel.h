// A panel of a packed weight as the microkernels take it: what every driver of a GEMM shares.
// Torch-free.
#pragma once

#include "cache_lines.h"
#include "packed_view.h"
#include "work.h"

namespace fastinfer {

// Where results go. All row-major with `ldc` elements a row.
struct GemmOutput {
  uint8_t* out_u8 = nullptr;
  float* out_f32 = nullptr;
  const uint8_t* residual_u8 = nullptr;
  const float* residual_f32 = nullptr;
  int64_t ldc = 0;
  const float* row_scale = nullptr;
  const int32_t* row_zero_point = nullptr;
  int row_step = 0;
};

// How much more a thread may get by rows before a split by panels, which packs rows twice, is better.
constexpr double kPackingRows = 1.04;

// The largest of `threads` shares of `count` equal parts, of 1.
inline double largest_share(int64_t count, int threads) {
  return static_cast<double>((count + threads - 1) / threads) / static_cast<double>(count);
}

// What one of `threads` threads does of all rows (or tiles, or lines of them) times all panels.
struct GemmShare {
  Range rows, panels;
};

// Over rows every thread packs its own and reads all weights, over panels the other way round. Panels
// for an evener share, and with kTiles (and linear layers with kSparse) where weights are twice the
// input and more: from L3 a core has them at less than 30 GB/s (Granite Rapids), slower than it
// multiplies a small image by them. With kRows where they are eight times the input: as fast where threads share an
// L3, and where each has its own ResNet-50's layers of 7 x 7 took 1.03 to 1.25 times as long by rows (Zen 4).
GemmShare gemm_share(const PackedView& view, int64_t rows, int64_t input_bytes, int thread,
                     int threads);

// Rows of one half of a tile, at most: see GemmTiles::half.
constexpr int64_t kHalfRows = 16;

// Bytes of rows a thread keeps at a time: they stay in its L2 while all panels pass.
inline int64_t row_block_bytes(const PackedHeader& h) {
  return static_cast<GemmForm>(h.form) == GemmForm::kTiles ? 384 * 1024 : 192 * 1024;
}

// A line of cache of results, and of residuals, is two panels': it stays in L2 from one to the other where so few
// weights are read again for every block that a block may be low (ResNet-50's layers of 64 and 256 channels on
// Zen 5: 0.9 of the time).
constexpr int64_t kFewWeightBytes = 128 * 1024, kResultBlockBytes = 384 * 1024;

// Bytes from one panel's weights to the next one's; not of kPairs and kSparse.
inline int64_t panel_bytes(const PackedView& view) {
  const PackedHeader& h = *view.header;
  const int64_t quad_bytes = static_cast<GemmForm>(h.form) == GemmForm::kWords ? 8 : 4;
  return view.quads * h.nr * quad_bytes;
}

// The most weights that stay in a thread's L2 while tile after tile passes them.
constexpr int64_t kCachedWeightBytes = 1024 * 1024;
// Of a tile's rows and a panel, in L1 together.
constexpr int64_t kNearBytes = 40 * 1024;

// The weights of a panel, for rows that lie together; the caller sets a, row_stride and tiles.
GemmTiles panel_tiles(const PackedView& view, int64_t panel);

// Has the kernels bring the weights of another panel near while all `tiles` of theirs pass. Networks
// hold more weights than an L2, so each layer finds its own in L3 or in memory, and a panel is begun
// with every line waited for. ResNet-50 on Zen 5: the layers of 7 x 7 took 1.4 times as long.
void fetch_panel(GemmTiles& run, const PackedView& view, int64_t panel, int64_t tiles);
// With fewer rows it pays for nothing: lines are asked for as fast as they are used, which CPUs do alone
// (Zen 5: 4 rows of 1024 x 1024 from L2 took 1.2 times as long, 8 of 4096 x 4096 from L3 0.74 times).
constexpr int64_t kFetchingRows = 6;
// Moves on by what a call with `run` has fetched.
void fetched(GemmTiles& run);

// Panels [p0, p1) of one group as the kernels take them: one; with kTiles as many as have all their
// channels and stay in L2 together. call(panel, how many).
template <class Call>
void each_panels(const PackedView& view, int64_t p0, int64_t p1, const Call& call) {
  const PackedHeader& h = *view.header;
  int64_t most = 1;
  if (static_cast<GemmForm>(h.form) == GemmForm::kTiles) {
    // An even number: two panels of 32 channels are a line of cache of the result.
    most = std::max<int64_t>(1, kCachedWeightBytes / panel_bytes(view) / 2 * 2);
  }
  const bool is_cut = p1 % h.panels_per_group == 0 && view.n_per_group() % h.nr != 0;
  const int64_t whole = p1 - is_cut;
  for (int64_t p = p0; p < whole; p += most) call(p, std::min(most, whole - p));
  if (is_cut) call(whole, int64_t{1});
}

// Panels [p0, p1) of one group for a thread whose rows are followed by another's, line of cache of the results by line,
// each for half of the rows and then for the others: call(panel, half, next), next: fetch_panel's, or -1.
//
// A CPU that has written a column of lines asks for those of the rows after the last. They are the other thread's, who
// begins its next panel there: in the same line, unless the rows were halved. To get them back takes long where
// threads share no L3 (Zen 4: the second one took 1.4 times as long for ResNet-50's layers of 1024 channels).
template <class Call>
void each_line_of_panels(const PackedView& view, int64_t p0, int64_t p1, const Call& call) {
  const PackedHeader& h = *view.header;
  const int64_t of_line = kLineBytes / h.nr;
  for (int64_t p = p0, end; p < p1; p = end) {
    end = std::min(p1, p + of_line - p % h.panels_per_group % of_line);
    for (const int half : {0, 1}) {
      for (int64_t q = p; q < end; q++) {
        const int64_t next = half == 0 ? q + 1 : end + (q - p);
        const bool is_near = half == 0 && (p > p0 || next == end);  // from the line before, or the first half
        call(q, half, is_near || next >= p1 ? -1 : next);
      }
    }
  }
}

// Panels of each group one after the other. call(first, end).
template <class Call>
void each_group(const PackedView& view, const Range& panels, const Call& call) {
  const int64_t per_group = view.header->panels_per_group;
  for (int64_t p = panels.begin; p < panels.end;) {
    const int64_t end = std::min(panels.end, (p / per_group + 1) * per_group);
    call(p, end);
    p = end;
  }
}

// The most rows of a tile, where `rows` lie together and all of a panel are `all`.
int64_t most_tile_rows(const PackedView& view, int64_t rows, int64_t all);

// Rows that lie together, in tiles that differ by at most one row; the first ones are the longer.
struct EvenTiles {
  EvenTiles(int64_t rows_in, int64_t mr_max)
      : count((rows_in + mr_max - 1) / mr_max), rows(rows_in / count), longer(rows_in % count) {}

  int half() const {
    const int64_t longest = rows + (longer > 0);
    return longest > kHalfRows ? static_cast<int>((longest + 1) / 2) : 0;
  }
  // call() for the tiles of each height, with run set for them but for its weights; run.a moves past all.
  template <class Call>
  void each(GemmTiles& run, const Call& call) const {
    run.half = half();
    for (const bool is_longer : {true, false}) {
      run.rows = static_cast<int>(rows + is_longer);
      run.tiles = is_longer ? longer : count - longer;
      if (run.tiles == 0) continue;
      run.second = (run.rows - run.half) * run.row_stride;
      run.step = run.rows * run.row_stride;
      call();
      run.a += run.tiles * run.step;
    }
  }

  int64_t count, rows, longer;
};

// Whether every tap of a run is one of its own to the kernels.
bool splits_into_taps(const PackedHeader& h);

// The epilogue of a panel, whose first result is in row m0.
Epilogue panel_epilogue(const PackedView& view, const GemmOutput& output, int64_t panel,
                        int64_t m0);

// The activation table, where there is one, over the columns of panels [p0, p1) of one group and
// rows [m0, m1), in place.
void look_up_panels(const PackedView& view, const GemmOutput& output, int64_t p0, int64_t p1,
                    int64_t m0, int64_t m1);

}  // namespace fastinfer
