#include "few_rows.h"

#include <algorithm>

namespace fastinfer {
namespace {

// Granite Rapids, one thread (2026-11). Weights that stay in a core's L2 between calls come from
// there, larger ones from L3 at less than 30 GB/s, and from DRAM at half of that.
constexpr double kNearBytesACycle = 32, kFarBytesACycle = 8;
// Two threads' L2, of 2 MiB each, keep weights of up to this between calls, beside all else.
constexpr int64_t kMostNearBytes = 3 << 20;
// A quad of one row takes no less than this, however much of it is read from L2; a panel's call.
constexpr double kLeastQuad = 5.5, kPanelCall = 130;
// What a sparse image must win by, and the most of the tiles' bytes that it may take.
constexpr double kMargin = 1.13, kMostBytes = 0.6;
// Tiles have been compared up to two of 32 rows.
constexpr int32_t kMostRows = 64;

}  // namespace

int32_t few_rows_most(const TileWork& tiles, const SparseWork& sparse) {
  if (static_cast<double>(sparse.bytes) > kMostBytes * static_cast<double>(tiles.bytes)) return 0;
  const bool is_far = tiles.bytes > kMostNearBytes;
  const double tile_loads =
      static_cast<double>(tiles.bytes) / (is_far ? kFarBytesACycle : kNearBytesACycle);
  const double once = (is_far ? static_cast<double>(sparse.bytes) / kFarBytesACycle : 0) +
                      static_cast<double>(sparse.panels) * kPanelCall;
  int32_t m = 0;
  for (; m < kMostRows; m++) {
    const double rows = m + 1;
    const double on_tiles = std::max(tile_loads, rows * tiles.products) + rows * tiles.results;
    const double picked =
        static_cast<double>(sparse.quads) * std::max(kLeastQuad, rows * sparse.quad);
    if (kMargin * (once + picked + rows * sparse.others) > on_tiles) break;
  }
  return m;
}

}  // namespace fastinfer
