#include "gemm_costs.h"

#include <algorithm>

#include "pack_gathered.h"

namespace fastinfer::cuda {
namespace {

int64_t tiles(int64_t size, int64_t block) { return (size + block - 1) / block; }

constexpr double kGather = 1.4;  // copying windows against rows of a matrix
constexpr double kCached = 40e6;  // bytes that stay in L2

bool is_matrix(const GemmDesc& d) { return d.source == RowSource::kMatrix; }

// Cycles of a tile on mma.sync: for 64 inputs, and for storing.
struct MmaCycles {
  double block, end;
};

// Blocks share a multiprocessor: stores of one hide behind another's copies.
double mma_sync_cycles(const Tile& t, const GemmDesc& d, MmaCycles large, MmaCycles small,
                       double gather) {
  const MmaCycles& of = t.block_m == 128 ? large : small;
  const int64_t count = tiles(d.m, t.block_m) * tiles(d.n, t.block_n) * d.groups;
  const auto waves = static_cast<double>(tiles(count, d.multiprocessors));
  const auto blocks = static_cast<double>(tiles(d.k_padded, 64));
  return waves * (blocks * of.block * (is_matrix(d) ? 1 : gather) + of.end);
}

}  // namespace

// Cycles a multiprocessor needs for its share of a product on wgmma. It copies the next tile while
// it multiplies and stores the last: the slower of the two counts. Numbers here and below are
// fitted to an H100 (bench/results/gpu_bench_h100.json), whose shapes get a tile within 4 % of the
// best.
double wgmma_cycles(const Tile& t, const GemmDesc& d) {
  constexpr double kBytes = 49, kMultiplyAdds = 3750;  // a cycle
  constexpr double kPanel = 390;                       // storing 32 columns
  constexpr double kEnd = 1150;                        // from the last products to the next tile's
  constexpr double kLargeCluster = 1.05, kMeeting = 100;
  const auto m = static_cast<double>(t.block_m), n = static_cast<double>(t.block_n);
  const auto blocks = static_cast<double>(tiles(d.k_padded, 128));
  const int64_t units =
      tiles(d.m, int64_t{t.block_m} * t.cluster) * tiles(d.n, t.block_n) * d.groups;
  const auto waves = static_cast<double>(tiles(units, d.multiprocessors / t.cluster));
  const double operands = static_cast<double>(d.m + d.n) * d.k_padded;
  // Beyond what stays in L2, sharing B pays.
  const double rate = t.cluster > 1 && operands > kCached ? kLargeCluster : 1;
  const double gather = is_matrix(d) ? 1 : kGather;
  const double copying = blocks * 128 * (m + n / t.cluster) * gather / kBytes;
  const double computing = blocks * 128 * m * n / (kMultiplyAdds * rate) + kPanel * n / 32 + kEnd +
                           (t.cluster > 1 ? kMeeting : 0);
  return waves * std::max(copying, computing);
}

// Short K and wide N are faster here than on wgmma.
double mma_cycles(const Tile& t, const GemmDesc& d) {
  return mma_sync_cycles(t, d, {670, 1980}, {260, 690}, kGather);
}

// A warpgroup waits for the places of the last stage's values before it loads the next's, so that a
// stage takes a time of its own beside its products. Blocks that copy for themselves read all from
// farther away where operands do not stay in L2.
double sparse_wgmma_cycles(const Tile& t, const GemmDesc& d, const SparseCosts& c) {
  const auto m = static_cast<double>(t.block_m), n = static_cast<double>(t.block_n);
  const auto stages = static_cast<double>(tiles(d.k_padded, 128));
  const int64_t units =
      tiles(d.m, t.block_m) * tiles(d.n, int64_t{t.block_n} * t.cluster) * d.groups;
  const auto waves = static_cast<double>(tiles(units, d.multiprocessors / t.cluster));
  const bool is_far = static_cast<double>(d.m + d.n) * d.k_padded > kCached && t.cluster == 1;
  const double copied = 128 * m / t.cluster * (is_matrix(d) ? 1 : c.two_windows) + 80 * n;
  const double copying = stages * copied / c.two_bytes * (is_far ? c.two_far : 1);
  const double computing = stages * (c.two_stage + 128 * m * n / c.two_multiply_adds) +
                           c.two_turn * m / 32 * n / 64 + c.two_end +
                           (t.cluster > 1 ? c.two_meeting : 0);
  return waves * std::max(copying, computing);
}

// Fitted to an H100 (of windows, to what they took against mma's); other devices have not been
// measured. A stage has 0.86 of mma's cycles, as loads of pixels are the same, and storing takes
// longer.
double sparse_mma_cycles(const Tile& t, const GemmDesc& d) {
  return mma_sync_cycles(t, d, {575, 3510}, {250, 875}, 1.5);
}

double gather_cycles(const Tile& t, const GemmDesc& d, const SparseCosts& c) {
  const bool is_half = d.gather_steps == 2 && (t.block_m != kGatherRows || t.block_n == 256);
  if (t.block_n != d.gather_channels || is_half) return 1e30;
  const auto m = static_cast<double>(t.block_m), n = static_cast<double>(t.block_n);
  const double kept = 32.0 * d.gather_steps, image = n * kept + kGatherPlaces;
  const auto stages = static_cast<double>(tiles(d.k_padded, 128));
  const int64_t units = tiles(d.m, t.block_m) * tiles(d.n, t.block_n) * d.groups;
  const auto waves = static_cast<double>(tiles(units, d.multiprocessors));
  const double copied = 128 * m * (is_matrix(d) ? 1 : c.gather_windows) + image;
  const double computing = (c.gather_stage + c.gather_load * m / 64) * d.gather_steps +
                           m * n * kept / c.gather_multiply_adds;
  return waves * std::max(stages * copied / c.gather_bytes,
                          stages * computing + c.gather_turn * m / 64 * n / 64 + c.gather_end);
}

double patch_cycles(const GemmDesc& d, const SparseCosts& c) {
  const auto n = static_cast<double>(d.gather_channels);
  const double image = n * 32 + kGatherPlaces;
  const auto stages = static_cast<double>(tiles(d.k_padded, 128));
  const auto waves = static_cast<double>(
      tiles(d.patch_tiles * tiles(d.n, d.gather_channels), d.multiprocessors));
  const double copying = (d.patch_bytes + stages * image) / c.patch_bytes;
  const double products = kGatherRows * n * 32 / c.patch_multiply_adds;
  const double computing =
      stages * (c.patch_stage + products) + c.patch_panel * n / 32 + c.patch_end;
  return waves * std::max(copying, computing);
}

}  // namespace fastinfer::cuda
