// A convolution of 3 x 3 taps with a step of 1 by Winograd's algorithm, exact to the bit. Torch-free.
//
// Tiles of the result are multiplied block by block: the block's inputs stay in L2 while all panels pass,
// each of whose weights are brought into Winograd's domain first. They lie packed as for any convolution, so
// networks take no more memory; in that domain a weight has eight times the bytes.
#pragma once

#include <algorithm>

#include "conv_operands.h"

namespace fastinfer {

// Results of one dimension in tiles of 4 that lie `dilation` apart, so that what a tile reads does, too.
struct WinogradAxis {
  struct Tile {
    int64_t first;
    int count;
  };

  int64_t size, dilation;

  int64_t tiles() const;
  Tile tile(int64_t index) const;
  int64_t positions() const;  // of all tiles
};

// Hands out rows of the matrices to tiles, one after the other.
class WinogradRows {
 public:
  explicit WinogradRows(int64_t row_values) : row_values_(row_values) {}

  WinogradPlace next(int lines, int columns);
  // How many rows the matrix of a position has so far.
  int64_t count(int line, int column) const {
    return next_.at[kWinogradLevel[line]][kWinogradLevel[column]] / row_values_;
  }

 private:
  int64_t row_values_;
  WinogradPlace next_ = {};
};

class WinogradConv : ConvOperands {
 public:
  // Whether this is possible, and estimated to be faster than multiplying windows.
  static bool suits(const PackedView& view, const ConvGeometry& g);

  using ConvOperands::ConvOperands;

  Work work() const;
  void run_part(int thread, int threads) const;

 private:
  struct Tile {
    int64_t pixel;  // of the result, its first one's index
    int64_t image;
    WinogradAxis::Tile lines, columns;
  };
  // A thread's memory.
  struct Domain {
    int16_t* rows;
    int64_t row_values, rows_step;  // of a row; from one position to the next
    int16_t* weights;
    int64_t weights_step;
    int32_t* sums;
    int64_t sums_step;
    Tile* at;       // the block's tiles
    uint8_t* fill;  // a pixel of padding
  };

  static double estimate(const PackedView& view, const ConvGeometry& g, int64_t tiles,
                         int64_t panels);
  GemmShare share(int thread, int threads) const;
  Domain domain(int64_t tiles) const;
  Tile tile(int64_t index) const;
  WinogradRows transform_inputs(const Domain& d, const Range& tiles) const;
  void multiply(const Domain& d, const WinogradRows& rows, int64_t panel, bool is_last) const;
  void multiply_late(const Domain& d, const WinogradRows& rows, int64_t panel, bool is_last) const;
  void transform_results(const Domain& d, int64_t tiles, int64_t panel) const;
  void look_up(const Domain& d, int64_t tiles, const Range& panels) const;
};

}  // namespace fastinfer
