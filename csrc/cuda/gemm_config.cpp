#include <algorithm>

#include "gemm_costs.h"
#include "pack_gathered.h"

namespace fastinfer::cuda {
namespace {

constexpr Tile kWgmmaTiles[] = {{128, 256, 2}, {128, 256, 1}, {128, 128, 1},
                                {128, 64, 1},  {64, 128, 1},  {64, 64, 1}};
constexpr Tile kSparseTiles[] = {
    {256, 128, 2}, {256, 128, 1}, {128, 128, 1}, {128, 64, 1}, {64, 64, 1}};
constexpr Tile kSparseMmaTiles[] = {{128, 128, 1}, {64, 64, 1}};
constexpr Tile kMmaTiles[] = {{128, 128, 1}, {64, 64, 1}};

// Pixels times channels, of which a weight has the latter; of two steps 128 pixels only, and fewer
// than 256 channels.
constexpr Tile kGatherTiles[] = {{256, 64, 1}, {128, 256, 1}, {128, 128, 1},
                                 {128, 64, 1}, {64, 256, 1},  {64, 128, 1}};

// wgmma is in Hopper only; later generations have other instructions for it.
bool has_wgmma(const GemmDesc& d) {
  return d.capability == 90 &&
         (d.source == RowSource::kMatrix || d.source == RowSource::kPixels);
}

template <int kCount, class Cost>
const Tile& cheapest(const Tile (&choices)[kCount], const Cost& cost) {
  return *std::min_element(choices, choices + kCount, [&cost](const auto& a, const auto& b) {
    return cost(a) < cost(b);
  });
}

// 2:4 on what this device has for it.
double two_of_four_cycles(const Tile& t, const GemmDesc& d) {
  return takes_sparse(d, GemmKernel::kSparseWgmma) ? sparse_wgmma_cycles(t, d)
                                                   : sparse_mma_cycles(t, d);
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
