#include "gemm_panel.h"

#include <algorithm>

#include "pack_sparse.h"

namespace fastinfer {

GemmShare gemm_share(const PackedView& view, int64_t rows, int64_t input_bytes, int thread,
                     int threads) {
  const PackedHeader& h = *view.header;
  const int64_t panels = view.panels();
  const double by_rows = largest_share(rows, threads), by_panels = largest_share(panels, threads);
  const auto form = static_cast<GemmForm>(h.form);
  const bool reads_far = form == GemmForm::kTiles ||
                         (form == GemmForm::kSparse &&
                          h.op == static_cast<int32_t>(PackedOp::kLinear));
  const int64_t times = reads_far ? 2 : form == GemmForm::kRows ? 8 : 0;
  const bool is_heavy = times > 0 && h.weight_bytes > times * input_bytes;
  if (is_heavy ? by_rows * kPackingRows < by_panels : by_rows <= by_panels * kPackingRows) {
    return {share_of(rows, thread, threads), {0, panels}};
  }
  return {{0, rows}, share_of(panels, thread, threads)};
}

GemmTiles panel_tiles(const PackedView& view, int64_t panel) {
  static constexpr int32_t kNoOffset = 0;
  const PackedHeader& h = *view.header;
  const auto form = static_cast<GemmForm>(h.form);
  const auto* weight = view.section<uint8_t>(h.weight);
  GemmTiles tiles{};
  tiles.lines = 1;
  if (form == GemmForm::kPairs) {
    const auto* index = view.section<int32_t>(h.index);
    const int32_t* entry = index + panel * 3;
    tiles.weight = weight + int64_t{entry[0]} * h.nr * 4;
    tiles.offsets = index + view.panels() * 3 + entry[0];
    tiles.pairs = entry[1];
    tiles.singles = entry[2];
    return tiles;
  }
  tiles.panels = 1;
  tiles.offsets = &kNoOffset;
  tiles.runs = 1;
  tiles.singles = view.quads;
  if (form == GemmForm::kSparse) {
    const auto* start = view.section<int32_t>(h.index);
    const int64_t steps = view.quads / view.step_quads;
    const int64_t begin = int64_t{start[panel]} * 64, panels = view.panels();
    tiles.weight = weight + begin;
    tiles.panel_bytes = (panel + 1 < panels ? int64_t{start[panel + 1]} * 64 : h.weight_bytes) - begin;
    tiles.picks = reinterpret_cast<const uint8_t*>(start + view.panels()) + panel * steps;
    tiles.step_quads = view.step_quads;
    return tiles;
  }
  tiles.panel_bytes = panel_bytes(view);
  tiles.weight = weight + panel * tiles.panel_bytes;
  if (form == GemmForm::kTiles) {
    const TileSteps whole = tile_steps(tiles.singles);
    tiles.step_quads = whole.count * whole.quads == tiles.singles ? whole.quads : view.step_quads;
  }
  return tiles;
}

int64_t most_tile_rows(const PackedView& view, int64_t rows, int64_t all) {
  const PackedHeader& h = *view.header;
  const GemmKernels& kernels = view.table->family(static_cast<GemmForm>(h.form), h.nr).kernels;
  const bool can = kernels.turn_rows > 0 && rows >= 2 * kernels.turn_rows &&
                   !h.has(kFlagFloatOutput) && !h.has(kFlagUnbounded);
  if (!can) return kernels.mr_max;
  bool pays;
  if (static_cast<GemmForm>(h.form) == GemmForm::kSparse) {
    pays = view.step_quads == kTileQuads &&
           h.weight_bytes > least_turn_bytes(h.nr / kPickLanes) * view.panels();
  } else {
    // With fewer groups of k results are not done when the next tile is. Low tiles read weights twice
    // as often: from L1, beside a tile's rows, or where there are rows enough.
    const int least_quads = h.has(kFlagResidual) ? 8 : 5;
    constexpr int64_t kNearWeightBytes = 16 * 1024, kManyRows = 100;
    pays = view.quads >= least_quads && (panel_bytes(view) <= kNearWeightBytes || all >= kManyRows);
  }
  return pays ? kernels.turn_rows : kernels.mr_max;
}

namespace {

// Times that a kernel fetches in a tile: every four groups of k, of kSparse every step.
int64_t fetches(const GemmTiles& run) {
  const int quads = run.picks != nullptr ? run.step_quads : 4;
  return int64_t{run.runs} * (run.singles / quads);
}

// Zeros leave little to wait for: only where few tiles share it does bringing it near pay (Zen 5: layers of
// 7 x 7 took 0.85 to 0.9 times as long beside others that used L3; 28 tiles 1.04 times).
constexpr int64_t kFewSparseTiles = 10;

}  // namespace

void fetch_panel(GemmTiles& run, const PackedView& view, int64_t panel, int64_t tiles) {
  const PackedHeader& h = *view.header;
  for (const int64_t section : {h.bias, h.multiplier, h.residual_multiplier}) {
    prefetch<Cache::kL1>(view.base + section + panel * h.nr * 4, int64_t{h.nr} * 4);
  }
  const auto form = static_cast<GemmForm>(h.form);
  const bool pays = form == GemmForm::kRows || (form == GemmForm::kSparse && tiles <= kFewSparseTiles);
  if (!pays || fetches(run) == 0) return;
  const GemmTiles next = panel_tiles(view, panel);
  run.ahead = static_cast<const uint8_t*>(next.weight);
  run.ahead_end = run.ahead + next.panel_bytes;
  run.is_read_once = view.is_read_once;
  const int64_t lines = divide_up(next.panel_bytes, kLineBytes);
  run.ahead_lines = static_cast<int>(divide_up(lines, fetches(run) * tiles));
}

void fetched(GemmTiles& run) {
  const int64_t lines = run.tiles * run.lines * fetches(run) * run.ahead_lines;
  run.ahead += std::min(lines * kLineBytes, run.ahead_end - run.ahead);
}

bool splits_into_taps(const PackedHeader& h) {
  if (h.c_per_group % 4 != 0 || h.run_quads() * 4 != h.run) return false;
  const auto form = static_cast<GemmForm>(h.form);
  if (!takes_steps(form)) return true;
  const int quads = h.c_per_group / 4;
  const TileSteps steps = tile_steps(quads);
  if (steps.count * steps.quads != quads) return false;
  return form == GemmForm::kTiles || steps.quads == h.step_quads();
}

Epilogue panel_epilogue(const PackedView& view, const GemmOutput& output, int64_t panel,
                        int64_t m0) {
  const PackedHeader& h = *view.header;
  const int64_t group = panel / h.panels_per_group;
  const int64_t in_group = (panel - group * h.panels_per_group) * h.nr;
  Epilogue e = view.epilogue(panel * h.nr);
  e.n_valid = static_cast<int>(std::min<int64_t>(h.nr, view.n_per_group() - in_group));
  e.ldc = output.ldc;
  e.row_step = output.row_step;
  const int64_t at = m0 * output.ldc + group * view.n_per_group() + in_group;
  if (output.out_u8) e.out_u8 = output.out_u8 + at;
  if (output.out_f32) e.out_f32 = output.out_f32 + at;
  if (output.residual_u8) e.residual_u8 = output.residual_u8 + at;
  if (output.residual_f32) e.residual_f32 = output.residual_f32 + at;
  if (output.row_scale) {
    e.row_scale = output.row_scale + m0 * output.row_step;
    e.row_zero_point = output.row_zero_point + m0 * output.row_step;
  }
  return e;
}

void look_up_panels(const PackedView& view, const GemmOutput& output, int64_t p0, int64_t p1,
                    int64_t m0, int64_t m1) {
  const PackedHeader& h = *view.header;
  if (!h.table) return;
  const int64_t group = p0 / h.panels_per_group, first = group * h.panels_per_group;
  const int64_t per_group = view.n_per_group();
  const int64_t begin = group * per_group + (p0 - first) * h.nr;
  const int64_t end = group * per_group + std::min((p1 - first) * h.nr, per_group);
  const auto look = view.table->lookup;
  if (begin == 0 && end == output.ldc) {
    uint8_t* rows = output.out_u8 + m0 * output.ldc;
    return look(rows, rows, (m1 - m0) * output.ldc, view.lookup_table());
  }
  for (int64_t m = m0; m < m1; m++) {
    uint8_t* row = output.out_u8 + m * output.ldc + begin;
    look(row, row, end - begin, view.lookup_table());
  }
}

}  // namespace fastinfer
