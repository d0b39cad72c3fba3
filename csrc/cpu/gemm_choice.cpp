#include "gemm_choice.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "few_rows.h"
#include "pack_pairs.h"
#include "pack_sparse.h"

namespace fastinfer {

std::vector<int8_t> gather_panel(const int8_t* weight, const PackedHeader& h, int64_t group,
                                 int64_t panel) {
  const int64_t per_group = h.n / h.panel_groups(), quad_bytes = int64_t{h.nr} * 4;
  const int64_t runs = h.k / h.run, run_quads = h.run_quads();
  std::vector<int8_t> out(static_cast<size_t>(int64_t{h.quads()} * quad_bytes), 0);
  const int64_t channels = std::min(int64_t{h.nr}, per_group - panel * h.nr);
  for (int64_t j = 0; j < channels; j++) {
    const int8_t* from = weight + (group * per_group + panel * h.nr + j) * h.k;
    int8_t* to = out.data() + j * 4;
    for (int64_t r = 0; r < runs; r++) {
      int8_t* at = to + r * run_quads * quad_bytes;
      const int8_t* const end = from + h.run;
      // Copies of a size that is known are one instruction each.
      for (; end - from >= 4; from += 4, at += quad_bytes) std::memcpy(at, from, 4);
      if (from != end) std::memcpy(at, from, static_cast<size_t>(end - from));
      from = end;
    }
  }
  return out;
}

namespace {

// Bytes of columns that are brought together in the time of a dot product.
constexpr int64_t kColumnBytes = 4;

// Whether a window's pixels are taken column by column, as one run. Rows of a kernel leave much of their last quads
// empty where they have few channels: the 7 x 7 x 3 of a first layer fill 42 quads by rows, 37 by columns.
bool takes_columns(const PackedHeader& h) {
  const auto form = static_cast<GemmForm>(h.form);
  if (h.op != static_cast<int32_t>(PackedOp::kConv2d) || h.groups != 1 || h.kh == 1) return false;
  if (form != GemmForm::kRows && form != GemmForm::kTiles) return false;
  if (!ColumnLines::fit(h.kh, h.c_per_group)) return false;
  PackedHeader columns = h;
  columns.run = h.k;
  const int64_t products = int64_t{h.quads() - columns.quads()} * h.panels_per_group * h.nr / kPickLanes;
  const int64_t bytes = int64_t{h.kh} * h.c_per_group * (h.has(kFlagStrided) ? 2 : 1);
  return products * kColumnBytes >= bytes;
}

void set_family(PackedHeader& h, const GemmFamily& family) {
  h.form = static_cast<int32_t>(family.form);
  h.nr = family.nr;
  h.panels_per_group = static_cast<int32_t>((h.n / h.panel_groups() + h.nr - 1) / h.nr);
  // A row of the kernel: kernels of this form read it where it lies in the image.
  h.run = reads_runs(family.form) ? h.kw * (h.k / (h.kh * h.kw)) : h.k;
  h.flags &= ~kFlagColumns;
  if (!takes_columns(h)) return;
  h.flags |= kFlagColumns;
  h.run = h.k;
}

// Panels by which the pairs of a whole weight are estimated: finding them takes time.
constexpr int kSampledPanels = 4;

// Of a vector of results.
float estimate_pairs(const GemmFamily& family, const int8_t* weight, const PackedHeader& h) {
  float sum = 0;
  const int panels = std::min(kSampledPanels, int{h.panels_per_group});
  for (int p = 0; p < panels; p++) {
    const PairedPanel paired = pack_pairs(gather_panel(weight, h, 0, p).data(), h.quads(), h.nr);
    sum += static_cast<float>(paired.pairs) * family.cost.pair +
           static_cast<float>(paired.singles) * family.cost.single;
  }
  return family.cost.result + sum / static_cast<float>(panels);
}

// Of a multiply-add.
double seconds_each(int64_t (*work)(int64_t rounds)) {
  constexpr int64_t kRounds = 2000;  // some microseconds, beside which reading a clock is little
  const auto begin = std::chrono::steady_clock::now();
  const auto products = static_cast<double>(work(kRounds));
  const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begin;
  return taken.count() / products;
}

// The least of some tries: others use this core, too.
double time_picked(const SparseCost& cost) {
  constexpr int kTries = 40;  // in turn: a clock that changes meets both
  double dense = 1, sparse = 1;
  for (int i = 0; i < kTries; i++) {
    dense = std::min(dense, seconds_each(cost.dense));
    sparse = std::min(sparse, seconds_each(cost.sparse));
  }
  return sparse / dense;
}

// How much longer products take when they are picked, here: measured once.
float picked_ratio(const SparseCost& cost) {
  struct Known {
    int64_t (*sparse)(int64_t);
    float ratio;
  };
  static thread_local std::vector<Known> known;
  for (const Known& k : known) {
    if (k.sparse == cost.sparse) return k.ratio;
  }
  known.push_back({cost.sparse, std::max(1.0f, static_cast<float>(time_picked(cost)))});
  return known.back().ratio;
}

// What a weight's sparse image takes. `h` has the family set.
struct SparseCount {
  int64_t bytes = 0, quads = 0;
  int64_t steps = 0;    // that have a quad
  int64_t changes = 0;  // of the number of quads from one step to the next, which a core does not foresee
};

SparseCount count_sparse(const int8_t* weight, const PackedHeader& h) {
  SparseCount found;
  for (int64_t g = 0; g < h.groups; g++) {
    for (int64_t p = 0; p < h.panels_per_group; p++) {
      const std::vector<int8_t> panel = gather_panel(weight, h, g, p);
      uint8_t before = 0;
      for (const uint8_t quads : count_picks(panel.data(), h.quads(), h.nr, h.step_quads())) {
        found.steps += quads != 0;
        found.changes += quads != before;
        found.quads += quads;
        before = quads;
      }
      found.bytes += h.quads() / h.step_quads() + static_cast<int64_t>(sizeof(int32_t));
    }
  }
  found.bytes += found.quads * (1 + h.nr / kPickLanes) * kPickLanes * 4;
  return found;
}

// branches: steps at whose end a core guesses wrong.
SparseWork sparse_work(const GemmFamily& family, int lanes, const PackedHeader& h,
                       const SparseCount& count, int64_t branches) {
  const int64_t panels = int64_t{h.groups} * h.panels_per_group;
  const float vectors = static_cast<float>(h.nr / lanes), single = family.cost.single;
  return {count.bytes, panels, count.quads, single * vectors * picked_ratio(family.sparse),
          single * static_cast<float>(branches) +
              static_cast<float>(panels) * vectors * family.cost.result};
}

// Of all panels of a group on average: zeros may be in few of them.
float estimate_sparse(const SparseWork& work, const PackedHeader& h) {
  const double all = static_cast<double>(work.quads) * work.quad + work.others;
  return static_cast<float>(all / h.groups);
}

// Cycles of one row of A times one group's dense weights. `h` has the family set.
float estimate_dense(const GemmFamily& family, int lanes, const int8_t* weight,
                     const PackedHeader& h) {
  const float vector =
      family.form == GemmForm::kPairs
          ? estimate_pairs(family, weight, h)
          : family.cost.result + static_cast<float>(h.quads()) * family.cost.single;
  const auto vectors = static_cast<float>(h.panel_groups() * h.panels_per_group * h.nr / lanes) /
                       static_cast<float>(h.groups);
  return vectors * vector + static_cast<float>(h.k) * family.cost.widen;
}

// What Winograd's convolution leaves of a dense layer's time, so that no sparse kernel is taken that is slower.
// Whether it runs depends on the image, too, which is not known here.
float winograd_part(const KernelTable& table, const GemmFamily& family, const PackedHeader& h) {
  constexpr int32_t kManyChannels = 128;
  const WinogradKernels* kernels = table.winograd_of(family.form, family.nr);
  const bool may_run = kernels != nullptr && h.has(kFlagWinogradSums) && !h.has(kFlagStrided) &&
                       h.groups == 1 && h.c_per_group % 4 == 0;
  if (!may_run) return 1.0f;
  return h.c_per_group < kManyChannels ? kernels->cost.few : kernels->cost.many;
}

// With fewer zeros in 100 no sparse kernel is faster, and they are not counted panel by panel.
constexpr int64_t kLeastZeros = 5;
// A sparse estimate has to be better by this: below it layers of ResNet-50 took 0.95 to 1.05 of the dense kernel's
// time on a Zen 4, and not the same ones on one thread and on two.
constexpr float kSparseMargin = 1.06f;

bool has_zeros(const int8_t* weight, const PackedHeader& h) {
  const int64_t all = int64_t{h.n} * h.k;
  return std::count(weight, weight + all, int8_t{0}) * 100 >= all * kLeastZeros;
}

// Whether 16 channels are those of whole groups, and what they read is 16 channels, too.
bool joins_groups(const PackedHeader& h) {
  return h.op == static_cast<int32_t>(PackedOp::kConv2d) && h.groups > 1 &&
         h.n / h.groups == h.c_per_group && (h.c_per_group == 4 || h.c_per_group == 8);
}

TileWork tile_work(const GemmFamily& family, int lanes, const PackedHeader& h) {
  const double vectors = static_cast<double>(h.panels_per_group) * h.nr / lanes;
  return {int64_t{h.panels_per_group} * h.nr * h.quads() * 4,
          vectors * h.quads() * family.cost.single, vectors * family.cost.result};
}

}  // namespace

std::optional<PackedHeader> choose_family(const KernelTable& table, const int8_t* weight,
                                          PackedHeader& h) {
  const bool may_be_sparse = has_zeros(weight, h);
  const GemmFamily* best = &table.gemm[0];
  float least = 0;
  struct Sparse {
    PackedHeader header;
    SparseWork work;
  };
  std::vector<Sparse> sparse;
  for (int i = 0; i < kMaxFamilies && table.gemm[i].nr != 0; i++) {
    const GemmFamily& family = table.gemm[i];
    const bool is_sparse = family.form == GemmForm::kSparse;
    if (is_sparse && !may_be_sparse) continue;
    if (family.form == GemmForm::kGroups && !joins_groups(h)) continue;
    set_family(h, family);
    float cost;
    if (is_sparse) {
      const SparseCount count = count_sparse(weight, h);
      // Calls of few rows are chosen by what was measured: a guess missed at each step.
      sparse.push_back({h, sparse_work(family, table.lanes, h, count, count.steps)});
      cost = estimate_sparse(sparse_work(family, table.lanes, h, count, count.changes), h) * kSparseMargin;
    } else {
      cost = estimate_dense(family, table.lanes, weight, h) * winograd_part(table, family, h);
    }
    if (i == 0 || cost < least) {
      best = &family;
      least = cost;
    }
  }
  set_family(h, *best);
  // A convolution hardly ever has so few pixels, and what it has is not known here.
  if (best->form != GemmForm::kTiles || h.op != static_cast<int32_t>(PackedOp::kLinear)) return {};
  std::optional<PackedHeader> few_rows;
  for (const Sparse& s : sparse) {
    const int32_t most = few_rows_most(tile_work(*best, table.lanes, h), s.work);
    if (most <= h.pixels) continue;
    h.pixels = most;
    few_rows = s.header;
  }
  return few_rows;
}

}  // namespace fastinfer
