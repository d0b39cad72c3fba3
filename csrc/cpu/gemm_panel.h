// A panel of a packed weight as the microkernels take it: what every driver of a GEMM shares.
// Torch-free.
#pragma once

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
// for an evener share, and with kTiles where weights do not stay in L2: from L3 a core has them at less
// than 30 GB/s (Granite Rapids), slower than it multiplies a small image by them.
GemmShare gemm_share(const PackedView& view, int64_t rows, int thread, int threads);

// A stride at which a tile's rows do not share the few cache sets that multiples of 1 KiB map to.
inline int64_t apart(int64_t stride) { return stride % 1024 == 0 ? stride + 64 : stride; }

// Rows of one half of a tile, at most: see GemmTiles::half.
constexpr int64_t kHalfRows = 16;

// Bytes of rows a thread keeps at a time: they stay in its L2 while all panels pass.
inline int64_t row_block_bytes(const PackedHeader& h) {
  return static_cast<GemmForm>(h.form) == GemmForm::kTiles ? 1024 * 1024 : 192 * 1024;
}

// Bytes from one panel's weights to the next one's; not of kPairs.
inline int64_t panel_bytes(const PackedHeader& h) {
  const int64_t quad_bytes = static_cast<GemmForm>(h.form) == GemmForm::kWords ? 8 : 4;
  return h.quads() * h.nr * quad_bytes;
}

// The most weights that stay in a thread's L2 while tile after tile passes them.
constexpr int64_t kCachedWeightBytes = 1024 * 1024;
// Of a tile's rows and a panel, in L1 together.
constexpr int64_t kNearBytes = 40 * 1024;

// The weights of a panel, for rows that lie together; the caller sets a, row_stride and tiles.
GemmTiles panel_tiles(const PackedView& view, int64_t panel);

// Panels [p0, p1) of one group as the kernels take them: as many at a time as have all their channels
// and, with kTiles, stay in cache; else one. call(panel, how many).
template <class Call>
void each_panels(const PackedView& view, int64_t p0, int64_t p1, const Call& call) {
  const PackedHeader& h = *view.header;
  if (static_cast<GemmForm>(h.form) != GemmForm::kTiles ||
      (p1 - p0) * panel_bytes(h) > kCachedWeightBytes) {
    for (int64_t p = p0; p < p1; p++) call(p, int64_t{1});
    return;
  }
  const bool is_cut = p1 % h.panels_per_group == 0 && view.n_per_group() % h.nr != 0;
  if (p1 - is_cut > p0) call(p0, p1 - is_cut - p0);
  if (is_cut) call(p1 - 1, int64_t{1});
}

// The epilogue of a panel, whose first result is in row m0.
Epilogue panel_epilogue(const PackedView& view, const GemmOutput& output, int64_t panel,
                        int64_t m0);

// The activation table, where there is one, over the columns of panels [p0, p1) of one group and
// rows [m0, m1), in place.
void look_up_panels(const PackedView& view, const GemmOutput& output, int64_t p0, int64_t p1,
                    int64_t m0, int64_t m1);

}  // namespace fastinfer
