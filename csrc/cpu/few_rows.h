// Up to how many rows a call is faster on a sparse image than on tiles. Torch-free.
//
// Tiles take as long for one row as for sixteen, and read every weight; what is picked takes longer
// with every row. Times are cycles of a core, of the weights of a linear layer.
#pragma once

#include <cstdint>

namespace fastinfer {

struct TileWork {
  int64_t bytes;     // of weights
  double products;   // of a row
  double results;
};

struct SparseWork {
  int64_t bytes;
  int64_t panels, quads;
  double quad;     // a quad's permute and dot products, of a row
  double others;   // of a row: starting steps, and results
};

// 0: the sparse image does not clearly win at any number, and is not worth its memory.
int32_t few_rows_most(const TileWork& tiles, const SparseWork& sparse);

}  // namespace fastinfer
