#include "gemm.h"

#include <algorithm>

namespace fastinfer::cuda {
namespace {

int64_t tiles(int64_t size, int64_t block) { return (size + block - 1) / block; }

// A tile shape of a kernel and what it costs, in cycles of one multiprocessor.
struct TileCost {
  int32_t block_m, block_n;
  double block;     // 128 bytes of K
  double overhead;  // start, epilogue and drain
};

// 4096 products a cycle at best; narrow tiles are bound by L2 and shared memory. Estimates: ratios
// between them matter.
constexpr TileCost kWgmmaTiles[] = {
    {128, 256, 1024, 3000}, {128, 128, 600, 2000}, {128, 64, 400, 1500},
    {64, 128, 400, 1500},   {64, 64, 300, 1200},
};

// Two blocks of 128 x 128 fit a multiprocessor; 2048 products a cycle at best.
constexpr TileCost kMmaTiles[] = {{128, 128, 1300, 2500}, {64, 64, 450, 1200}};

template <int kCount>
const TileCost& cheapest(const TileCost (&choices)[kCount], const GemmDesc& d) {
  const auto cost = [&d](const TileCost& t) {
    const int64_t count = tiles(d.m, t.block_m) * tiles(d.n, t.block_n) * d.groups;
    const auto waves = static_cast<double>(tiles(count, d.multiprocessors));
    return waves * (static_cast<double>(tiles(d.k_padded, 128)) * t.block + t.overhead);
  };
  return *std::min_element(choices, choices + kCount, [&cost](const auto& a, const auto& b) {
    return cost(a) < cost(b);
  });
}

}  // namespace

GemmConfig choose_config(const GemmDesc& d) {
  // wgmma is in Hopper only; later generations have other instructions for it.
  const bool has_wgmma = d.capability == 90;
  const bool has_copies = d.source == RowSource::kMatrix || d.source == RowSource::kPixels;
  if (!has_wgmma || !has_copies) {
    const TileCost& tile = cheapest(kMmaTiles, d);
    return {GemmKernel::kMma, d.source, tile.block_m, tile.block_n, 1};
  }
  const TileCost& tile = cheapest(kWgmmaTiles, d);
  const bool shares = tile.block_n == 256 && d.m > tile.block_m;
  return {GemmKernel::kWgmma, d.source, tile.block_m, tile.block_n, shares ? 2 : 1};
}

std::vector<GemmConfig> known_configs() {
  std::vector<GemmConfig> all;
  for (const TileCost& t : kMmaTiles) {
    all.push_back({GemmKernel::kMma, RowSource::kMatrix, t.block_m, t.block_n, 1});
  }
  for (const TileCost& t : kWgmmaTiles) {
    all.push_back({GemmKernel::kWgmma, RowSource::kMatrix, t.block_m, t.block_n, 1});
  }
  all.push_back({GemmKernel::kWgmma, RowSource::kMatrix, 128, 256, 2});
  return all;
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
