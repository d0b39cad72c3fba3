#include "gemm.h"

#include <algorithm>

#include "pack_gathered.h"

namespace fastinfer::cuda {
namespace {

int64_t tiles(int64_t size, int64_t block) { return (size + block - 1) / block; }

struct Tile {
  int32_t block_m, block_n, cluster;
};

constexpr Tile kWgmmaTiles[] = {{128, 256, 2}, {128, 256, 1}, {128, 128, 1},
                                {128, 64, 1},  {64, 128, 1},  {64, 64, 1}};
constexpr Tile kSparseTiles[] = {
    {256, 128, 2}, {256, 128, 1}, {128, 128, 1}, {128, 64, 1}, {64, 64, 1}};
constexpr Tile kSparseMmaTiles[] = {{128, 128, 1}, {64, 64, 1}};
constexpr Tile kMmaTiles[] = {{128, 128, 1}, {64, 64, 1}};

constexpr double kGather = 1.4;  // copying windows against rows of a matrix

// Cycles a multiprocessor needs for its share of a product on wgmma. It copies the next tile while
// it multiplies and stores the last: the slower of the two counts. Numbers here and below are
// fitted to an H100 (bench/results/gpu_bench_h100.json), whose shapes get a tile within 4 % of the
// best.
double wgmma_cycles(const Tile& t, const GemmDesc& d) {
  constexpr double kBytes = 49, kMultiplyAdds = 3750;  // a cycle
  constexpr double kPanel = 390;                       // storing 32 columns
  constexpr double kEnd = 1150;                        // from the last products to the next tile's
  constexpr double kLargeCluster = 1.05, kMeeting = 100;
  constexpr double kCached = 40e6;  // bytes that stay in L2; beyond, sharing B pays
  const auto m = static_cast<double>(t.block_m), n = static_cast<double>(t.block_n);
  const auto blocks = static_cast<double>(tiles(d.k_padded, 128));
  const int64_t units =
      tiles(d.m, int64_t{t.block_m} * t.cluster) * tiles(d.n, t.block_n) * d.groups;
  const auto waves = static_cast<double>(tiles(units, d.multiprocessors / t.cluster));
  const double operands = static_cast<double>(d.m + d.n) * d.k_padded;
  const double rate = t.cluster > 1 && operands > kCached ? kLargeCluster : 1;
  const double gather = d.source == RowSource::kMatrix ? 1 : kGather;
  const double copying = blocks * 128 * (m + n / t.cluster) * gather / kBytes;
  const double computing = blocks * 128 * m * n / (kMultiplyAdds * rate) + kPanel * n / 32 + kEnd +
                           (t.cluster > 1 ? kMeeting : 0);
  return waves * std::max(copying, computing);
}

// The same on mma.sync, whose blocks share a multiprocessor: stores of one hide behind another's
// copies, so that short K and wide N are faster here.
double mma_cycles(const Tile& t, const GemmDesc& d) {
  const bool is_large = t.block_m == 128;
  const int64_t count = tiles(d.m, t.block_m) * tiles(d.n, t.block_n) * d.groups;
  const auto waves = static_cast<double>(tiles(count, d.multiprocessors));
  const auto blocks = static_cast<double>(tiles(d.k_padded, 64));
  const double block = (is_large ? 670 : 260) * (d.source == RowSource::kMatrix ? 1 : kGather);
  return waves * (blocks * block + (is_large ? 1980 : 690));
}

// The same on wgmma.sp, whose tiles are pixels times channels. Not measured yet: a guess from what
// its operands take of shared memory, which serves them no faster than 128 bytes a cycle.
double sparse_cycles(const Tile& t, const GemmDesc& d) {
  constexpr double kBytes = 49, kMultiplyAdds = 5200;  // a cycle; products with zeros count
  constexpr double kTurn = 240, kEnd = 1320, kMeeting = 100;
  const auto m = static_cast<double>(t.block_m), n = static_cast<double>(t.block_n);
  const auto blocks = static_cast<double>(tiles(d.k_padded, 128));
  const int64_t units =
      tiles(d.m, t.block_m) * tiles(d.n, int64_t{t.block_n} * t.cluster) * d.groups;
  const auto waves = static_cast<double>(tiles(units, d.multiprocessors / t.cluster));
  const double gather = d.source == RowSource::kMatrix ? 1 : kGather;
  const double copying = blocks * (128 * m / t.cluster * gather + 80 * n) / kBytes;
  const double computing = blocks * 128 * m * n / kMultiplyAdds + kTurn * m / 32 + kEnd +
                           (t.cluster > 1 ? kMeeting : 0);
  return waves * std::max(copying, computing);
}

// Pixels times channels, of which a weight has the latter; of two steps 128 pixels only, and fewer
// than 256 channels.
constexpr Tile kGatherTiles[] = {{256, 64, 1}, {128, 256, 1}, {128, 128, 1},
                                 {128, 64, 1}, {64, 256, 1},  {64, 128, 1}};

// The same where channels keep the same inputs. Not measured yet: what loads of bytes, copies and
// products take of shared memory, which is more than the products themselves take.
double gather_cycles(const Tile& t, const GemmDesc& d) {
  constexpr double kBytes = 49, kMultiplyAdds = 3750, kPanel = 540, kEnd = 1320;
  constexpr double kSharedBytes = 128, kLoad = 80;  // a cycle; 32 kept inputs of 64 rows
  const bool is_half = d.gather_steps == 2 && (t.block_m != kGatherRows || t.block_n == 256);
  if (t.block_n != d.gather_channels || is_half) return 1e30;
  const auto n = static_cast<double>(d.gather_channels);
  const auto steps = static_cast<double>(d.gather_steps);
  const double rows = t.block_m, image = n * 32 * steps + 128;
  const auto blocks = static_cast<double>(tiles(d.k_padded, 128));
  const int64_t units = tiles(d.m, t.block_m) * tiles(d.n, d.gather_channels) * d.groups;
  const auto waves = static_cast<double>(tiles(units, d.multiprocessors));
  const double gather = d.source == RowSource::kMatrix ? 1 : kGather;
  const double copying = (128 * rows * gather + image) / kBytes;
  const double shared = kLoad * steps * rows / 64 +
                        (128 * rows + image + rows / 64 * n * 32 * steps) / kSharedBytes;
  const double computing = rows * n * 32 * steps / kMultiplyAdds;
  return waves * (blocks * std::max({copying, shared, computing}) + kPanel * n / 32 + kEnd);
}

// wgmma is in Hopper only; later generations have other instructions for it.
bool has_wgmma(const GemmDesc& d) {
  return d.capability == 90 &&
         (d.source == RowSource::kMatrix || d.source == RowSource::kPixels);
}

// The same of patches, which come once for all taps.
double patch_cycles(const GemmDesc& d) {
  constexpr double kBytes = 49, kMultiplyAdds = 3750, kPanel = 540, kEnd = 1320;
  constexpr double kSharedBytes = 128, kLoads = 190;  // 32 kept inputs of 128 rows
  const auto n = static_cast<double>(d.gather_channels), patch = static_cast<double>(d.patch_bytes);
  const double image = n * 32 + 128, blocks = static_cast<double>(tiles(d.k_padded, 128));
  const auto waves = static_cast<double>(
      tiles(d.patch_tiles * tiles(d.n, d.gather_channels), d.multiprocessors));
  const double copying = (patch + blocks * image) / kBytes;
  const double shared =
      blocks * kLoads + (patch + blocks * (image + 2 * n * 32)) / kSharedBytes;
  const double computing = blocks * 128 * n * 32 / kMultiplyAdds;
  return waves * (std::max({copying, shared, computing}) + kPanel * n / 32 + kEnd);
}

template <int kCount, class Cost>
const Tile& cheapest(const Tile (&choices)[kCount], const Cost& cost) {
  return *std::min_element(choices, choices + kCount, [&cost](const auto& a, const auto& b) {
    return cost(a) < cost(b);
  });
}

// 2:4 on what this device has for it. mma.sp is not measured yet: its products are taken to be a
// third faster than those of mma.
double two_of_four_cycles(const Tile& t, const GemmDesc& d) {
  constexpr double kMmaShare = 0.75;
  return takes_sparse(d, GemmKernel::kSparseWgmma) ? sparse_cycles(t, d)
                                                   : kMmaShare * mma_cycles(t, d);
}

const Tile& best_gather(const GemmDesc& d) {
  return cheapest(kGatherTiles, [&d](const Tile& tile) { return gather_cycles(tile, d); });
}

const Tile& best_two_of_four(const GemmDesc& d) {
  const auto cost = [&d](const Tile& tile) { return two_of_four_cycles(tile, d); };
  return takes_sparse(d, GemmKernel::kSparseWgmma) ? cheapest(kSparseTiles, cost)
                                                   : cheapest(kSparseMmaTiles, cost);
}

}  // namespace

GemmConfig choose_config(const GemmDesc& d) {
  const auto mma_cost = [&d](const Tile& tile) { return mma_cycles(tile, d); };
  const auto wgmma_cost = [&d](const Tile& tile) { return wgmma_cycles(tile, d); };
  const Tile& mma = cheapest(kMmaTiles, mma_cost);
  const Tile& wgmma = cheapest(kWgmmaTiles, wgmma_cost);
  const double least = dense_cost(d) / kSparseMargin;
  if (takes_sparse(d, GemmKernel::kGatherWgmma) && gather_cost(d) < least) {
    if (takes_sparse(d, GemmKernel::kPatchWgmma) && patch_cycles(d) <= gather_cost(d)) {
      return {GemmKernel::kPatchWgmma, d.source, kGatherRows, d.gather_channels, 1};
    }
    const Tile& tile = best_gather(d);
    return {GemmKernel::kGatherWgmma, d.source, tile.block_m, tile.block_n, tile.cluster};
  }
  const bool is_hopper = takes_sparse(d, GemmKernel::kSparseWgmma);
  if ((is_hopper || takes_sparse(d, GemmKernel::kSparseMma)) && two_of_four_cost(d) < least) {
    const Tile& tile = best_two_of_four(d);
    const GemmKernel kernel = is_hopper ? GemmKernel::kSparseWgmma : GemmKernel::kSparseMma;
    return {kernel, d.source, tile.block_m, tile.block_n, tile.cluster};
  }
  if (has_wgmma(d) && wgmma_cost(wgmma) <= mma_cost(mma)) {
    return {GemmKernel::kWgmma, d.source, wgmma.block_m, wgmma.block_n, wgmma.cluster};
  }
  return {GemmKernel::kMma, d.source, mma.block_m, mma.block_n, mma.cluster};
}

std::vector<GemmConfig> known_configs() {
  std::vector<GemmConfig> all;
  for (const Tile& t : kMmaTiles) {
    all.push_back({GemmKernel::kMma, RowSource::kMatrix, t.block_m, t.block_n, t.cluster});
  }
  for (const Tile& t : kWgmmaTiles) {
    all.push_back({GemmKernel::kWgmma, RowSource::kMatrix, t.block_m, t.block_n, t.cluster});
  }
  return all;
}

std::vector<GemmConfig> known_sparse_configs() {
  std::vector<GemmConfig> all;
  for (const Tile& t : kSparseTiles) {
    all.push_back({GemmKernel::kSparseWgmma, RowSource::kMatrix, t.block_m, t.block_n, t.cluster});
  }
  for (const Tile& t : kSparseMmaTiles) {
    all.push_back({GemmKernel::kSparseMma, RowSource::kMatrix, t.block_m, t.block_n, t.cluster});
  }
  return all;
}

std::vector<GemmConfig> known_gather_configs() {
  std::vector<GemmConfig> all;
  for (const Tile& t : kGatherTiles) {
    all.push_back({GemmKernel::kGatherWgmma, RowSource::kMatrix, t.block_m, t.block_n, t.cluster});
  }
  for (const int32_t channels : {256, 128, 64}) {
    all.push_back({GemmKernel::kPatchWgmma, RowSource::kMatrix, kGatherRows, channels, 1});
  }
  return all;
}

double dense_cost(const GemmDesc& d) {
  const double mma = mma_cycles(cheapest(kMmaTiles, [&d](const Tile& t) {
    return mma_cycles(t, d);
  }), d);
  if (!has_wgmma(d)) return mma;
  return std::min(mma, wgmma_cycles(cheapest(kWgmmaTiles, [&d](const Tile& t) {
    return wgmma_cycles(t, d);
  }), d));
}

double gather_cost(const GemmDesc& d) {
  const double tiled = gather_cycles(best_gather(d), d);
  return takes_sparse(d, GemmKernel::kPatchWgmma) ? std::min(tiled, patch_cycles(d)) : tiled;
}

double two_of_four_cost(const GemmDesc& d) { return two_of_four_cycles(best_two_of_four(d), d); }

bool takes_sparse(const GemmDesc& d, GemmKernel kernel) {
  const bool is_patch = kernel == GemmKernel::kPatchWgmma;
  const bool is_gather = kernel == GemmKernel::kGatherWgmma || is_patch;
  if (!d.has_sparse || is_gather != (d.gather_channels != 0)) return false;
  if (is_patch && (d.patch_tiles == 0 || d.gather_steps != 1)) return false;
  if (kernel == GemmKernel::kSparseMma) return d.source != RowSource::kNarrow;
  // Pixels of 32 bytes are narrower than what sparse products of a warpgroup take of K.
  return has_wgmma(d) && (d.source == RowSource::kMatrix || d.pixel_bytes >= 64);
}

int32_t pixel_bytes(int32_t run) { return run % 128 == 0 ? 128 : run % 64 == 0 ? 64 : 32; }

RowSource row_source(const GemmCall& call) {
  const bool whole = call.run % 16 == 0 && reinterpret_cast<uintptr_t>(call.x) % 16 == 0;
  if (!whole) return RowSource::kNarrow;
  const Windows& w = call.windows;
  if (w.is_matrix() && call.groups == 1) return RowSource::kMatrix;
  // What a tensor map can say: places of a box in a byte each, steps of at most 8.
  const bool has_map = call.run % 32 == 0 && w.pad_h < 128 && w.pad_w < 128 && w.stride_h <= 8 &&
                       w.stride_w <= 8 && (w.kh - 1) * int64_t{w.dilation_h} < 128 &&
                       (w.kw - 1) * int64_t{w.dilation_w} < 128;
  return has_map ? RowSource::kPixels : RowSource::kWindows;
}

}  // namespace fastinfer::cuda
