// Which tile of C a block computes: neighbours in time share rows and columns in L2.
#pragma once

#include <cstdint>

namespace fastinfer::cuda {

struct TilePlace {
  int32_t m, n;
};

// Columns of at most kTileRows tiles, one after the other.
__device__ __forceinline__ TilePlace tile_place(int32_t index, int32_t m_tiles, int32_t n_tiles) {
  constexpr int32_t kTileRows = 8;
  const int32_t band = index / (kTileRows * n_tiles), first = band * kTileRows;
  const int32_t rows = min(m_tiles - first, kTileRows), inside = index - first * n_tiles;
  return {first + inside % rows, inside / rows};
}

}  // namespace fastinfer::cuda
