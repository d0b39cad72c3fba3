// Splits an int8 GEMM into tiles and threads and feeds the microkernels of the ISA in force.
// Torch-free.
#pragma once

#include <algorithm>
#include <cstring>
#include <utility>

#include "gemm_panel.h"
#include "scratch.h"

namespace fastinfer {

constexpr int64_t kCopySlack = 16;
// Rows are halved where a call that has half of them is long enough, by its rows and its panel's bytes, and of those
// with a residual where they are few (Zen 4, threads that share an L3: ResNet-50's layers of 256 and 512 channels took
// 1.015 times as long, sparse ones of 1024 1.02, dense ones 0.985).
constexpr int64_t kLeastHalvedTiles = 4, kLeastHalfWork = 64 * 1024;
constexpr int64_t kLeastResidualWork = 384 * 1024, kMostResidualRows = 256;

// Rows of a matrix that is in memory: a linear layer's input.
struct MatrixRows {
  const uint8_t* x;
  int64_t k;
  int64_t step;  // bytes from a row to the next

  bool is_direct() const { return true; }
  const uint8_t* base(int64_t) const { return x; }
  int64_t stride() const { return step; }
  int64_t bytes(int64_t rows) const { return rows * k; }
  // Rows [row, row + count), `to_step` bytes apart. Up to kCopySlack bytes after a row may change.
  void copy(int64_t row, int64_t count, int64_t, uint8_t* to, int64_t to_step) const {
    for (int64_t r = 0; r < count; r++) {
      std::memcpy(to + r * to_step, x + (row + r) * step, static_cast<size_t>(k));
    }
  }
};

template <class Rows>
class GemmDriver {
 public:
  GemmDriver(const PackedView& view, const Rows& rows, int64_t m, const GemmOutput& output)
      : view_(view.for_rows(m)), h_(*view_.header), rows_(rows), output_(output), m_(m) {
    form_ = static_cast<GemmForm>(h_.form);
    family_ = &view_.table->family(form_, h_.nr);
    k_groups_ = view_.quads;
    quad_bytes_ = form_ == GemmForm::kWords ? 8 : 4;
    row_bytes_ = k_groups_ * quad_bytes_;
    is_whole_ = rows.is_direct() && k_groups_ * 4 == h_.k;
    is_direct_ = is_whole_ && form_ != GemmForm::kWords;
    if (form_ == GemmForm::kRows) {
      row_bytes_ = apart(row_bytes_);
      is_direct_ = is_direct_ && rows.stride() == apart(rows.stride());
    }
    most_rows_ = most_tile_rows(view_, m, m);
    tiles_ = divide_up(m, most_rows_);
    tile_rows_ = m == 0 ? 0 : m / tiles_;
    long_tiles_ = m - tile_rows_ * tiles_;
  }

  Work work() const { return {m_ * int64_t{h_.n} * h_.k, std::max(tiles_, view_.panels())}; }

  void run_part(int thread, int threads) const {
    if (m_ == 0) return;
    run_share(thread, threads);
    if (view_.table->finish) view_.table->finish();
  }

 private:
  void run_share(int thread, int threads) const {
    const auto [tiles, panels] = gemm_share(view_, tiles_, rows_.bytes(m_), thread, threads);
    if (tiles.begin < tiles.end && panels.begin < panels.end) {
      part(tiles.begin, tiles.end, panels.begin, panels.end);
    }
  }

  // Tiles differ by at most one row (49 = 13 + 12 + 12 + 12); the first ones are the longer.
  int64_t tile_row(int64_t tile) const {
    return tile * tile_rows_ + std::min(tile, long_tiles_);
  }

  int64_t block_rows() const {
    const int64_t rows = row_block_bytes(h_) / row_bytes_;
    if (form_ == GemmForm::kTiles || !output_.out_u8 || h_.weight_bytes > kFewWeightBytes) {
      return rows;
    }
    const int64_t results = output_.residual_u8 ? 2 * output_.ldc : output_.ldc;
    return std::min(rows, kResultBlockBytes / (row_bytes_ + results));
  }

  // Tiles [t0, t1) times panels [p0, p1).
  void part(int64_t t0, int64_t t1, int64_t p0, int64_t p1) const {
    const int64_t per_group = h_.panels_per_group, count = t1 - t0;
    const int64_t most = std::clamp<int64_t>(block_rows() / most_rows_, 1, count);
    const auto blocks = static_cast<int>(divide_up(count, most));
    for (int64_t g = p0 / per_group; g * per_group < p1; g++) {
      const int64_t first = std::max(p0, g * per_group);
      const int64_t last = std::min(p1, (g + 1) * per_group);
      for (int b = 0; b < blocks; b++) {
        const Range tiles = share_of(count, b, blocks);
        block_of_tiles(g, first, last, t0 + tiles.begin, t0 + tiles.end, count < tiles_);
      }
    }
  }

  // is_shared: other rows are other threads'.
  void block_of_tiles(int64_t g, int64_t p0, int64_t p1, int64_t t0, int64_t t1, bool is_shared) const {
    const uint8_t* packed = is_direct_ ? nullptr : pack_rows(g, t0, t1);
    if (is_shared && p1 - p0 > 1 && takes_halves(t1 - t0, tile_row(t1) - tile_row(t0))) {
      each_line_of_panels(view_, p0, p1, [&](int64_t p, int half, int64_t next) {
        const Range tiles = share_of(t1 - t0, half, 2);
        const int64_t first = t0 + tiles.begin;
        const uint8_t* rows = packed ? packed + (tile_row(first) - tile_row(t0)) * row_bytes_ : nullptr;
        run_panels(g, p, 1, first, t0 + tiles.end, rows, next);
      });
    } else {
      each_panels(view_, p0, p1, [&](int64_t p, int64_t count) {
        run_panels(g, p, count, t0, t1, packed, p + count < p1 ? p + count : -1);
      });
    }
    look_up_panels(view_, output_, p0, p1, tile_row(t0), tile_row(t1));
  }

  bool takes_halves(int64_t tiles, int64_t rows) const {
    if (form_ == GemmForm::kTiles || h_.nr >= kLineBytes || !output_.out_u8 || tiles < kLeastHalvedTiles) return false;
    const int64_t work = rows / 2 * (h_.weight_bytes / view_.panels());
    return output_.residual_u8 ? work >= kLeastResidualWork && rows <= kMostResidualRows : work >= kLeastHalfWork;
  }

  // The rows of tiles [t0, t1) as the kernels read them, `row_bytes_` a row.
  const uint8_t* pack_rows(int64_t g, int64_t t0, int64_t t1) const {
    struct PackedRows;
    const int64_t m0 = tile_row(t0), count = tile_row(t1) - m0;
    uint8_t* to = scratch<PackedRows>(row_bytes_ * count + kCopySlack);
    if (form_ == GemmForm::kWords) {
      widen_rows(g, m0, count, reinterpret_cast<int16_t*>(to));
    } else {
      rows_.copy(m0, count, g, to, row_bytes_);
    }
    return to;
  }

  void widen_rows(int64_t g, int64_t m0, int64_t count, int16_t* to) const {
    const int64_t bytes = k_groups_ * 4;
    if (is_whole_ && rows_.stride() == bytes) {
      return view_.table->widen(rows_.base(g) + m0 * bytes, to, count * bytes);
    }
    if (rows_.is_direct()) {
      // Whole vectors: what one row reads and writes too much belongs to the next ones.
      const int64_t whole = (h_.k + kCopySlack - 1) / kCopySlack * kCopySlack;
      const int64_t stride = rows_.stride(), step = std::min(stride, bytes);
      const uint8_t* from = rows_.base(g) + m0 * stride;
      for (int64_t r = 0; r < count; r++, from += stride, to += bytes) {
        const int64_t left = (count - 1 - r) * step + h_.k;
        view_.table->widen(from, to, left >= whole ? whole : h_.k);
      }
      return;
    }
    struct Narrow;
    uint8_t* rows = scratch<Narrow>(bytes * count + kCopySlack);
    rows_.copy(m0, count, g, rows, bytes);
    view_.table->widen(rows, to, count * bytes);
  }

  // `count` panels times tiles [t0, t1), whose rows are `packed` or where they lie. next: see fetch_panel; -1: none.
  void run_panels(int64_t g, int64_t p, int64_t count, int64_t t0, int64_t t1,
                  const uint8_t* packed, int64_t next) const {
    GemmTiles run = panel_tiles(view_, p);
    run.panels = count;
    run.row_stride = packed ? row_bytes_ : rows_.stride();
    const int64_t longest = tile_rows_ + (long_tiles_ > 0);
    run.half = longest > kHalfRows ? static_cast<int>((longest + 1) / 2) : 0;
    run.streams_weight = count > 1 && longest * row_bytes_ + run.panel_bytes > kNearBytes;
    const int64_t first = tile_row(t0);
    if (next >= 0 && tile_row(t1) - first >= kFetchingRows) fetch_panel(run, view_, next, t1 - t0);
    // Tiles of two heights at most: see tile_row.
    const int64_t cut = std::clamp(long_tiles_, t0, t1);
    for (const auto& [from, to] : {std::pair{t0, cut}, std::pair{cut, t1}}) {
      if (from == to) continue;
      const int64_t m0 = tile_row(from), rows = tile_row(from + 1) - m0;
      run.a = packed ? packed + (m0 - first) * row_bytes_ : rows_.base(g) + m0 * rows_.stride();
      run.tiles = to - from;
      run.rows = static_cast<int>(rows);
      run.step = rows * run.row_stride;
      run.second = (rows - run.half) * run.row_stride;
      family_->kernels.kernel[rows - 1](run, panel_epilogue(view_, output_, p, m0));
      fetched(run);
    }
  }

  const PackedView view_;
  const PackedHeader& h_;
  const Rows& rows_;
  const GemmOutput output_;
  const GemmFamily* family_;
  GemmForm form_;
  int64_t m_, most_rows_, tiles_, tile_rows_, long_tiles_, k_groups_, quad_bytes_, row_bytes_;
  bool is_whole_;   // rows of A lie in memory as whole groups of 4 k's
  bool is_direct_;  // and the kernels read them there
};

}  // namespace fastinfer
