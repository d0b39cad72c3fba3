// A convolution of 3 x 3 taps with a step of 1 by Winograd's algorithm, exact to the bit. Torch-free.
//
// Tiles of the result are multiplied block by block: the block's inputs stay in L2 while all panels pass,
// each of whose weights are brought into Winograd's domain first. They lie packed as for any convolution, so
// networks take no more memory; in that domain a weight has eight times the bytes.
#pragma once

#include <algorithm>

#include "conv_shape.h"
#include "gemm_panel.h"

namespace fastinfer {

// Results of one dimension in tiles of 4 that lie `dilation` apart, so that what a tile reads does, too.
struct WinogradAxis {
  struct Tile {
    int64_t first, count;
  };

  int64_t size, dilation;

  int64_t tiles() const;
  Tile tile(int64_t index) const;
  // Of all tiles, each as many as pixels that it reads.
  int64_t positions() const;
  static int64_t positions_of(int64_t results) { return std::max<int64_t>(2, results) + 2; }
};

// Hands out rows of the matrices to tiles, one after the other.
class WinogradRows {
 public:
  explicit WinogradRows(int64_t row_values) : row_values_(row_values) {}

  WinogradPlace next(int64_t lines, int64_t columns);
  // How many rows the matrix of a position has so far.
  int64_t count(int line, int column) const {
    return next_.at[kWinogradLevel[line]][kWinogradLevel[column]] / row_values_;
  }

 private:
  int64_t row_values_;
  WinogradPlace next_ = {};
};

class WinogradConv {
 public:
  // Whether this is possible, and estimated to be faster than multiplying windows.
  static bool suits(const PackedView& view, const ConvGeometry& g);

  // x: NHWC. fill: what padding holds.
  WinogradConv(const PackedView& view, const ConvGeometry& g, const uint8_t* x, uint8_t fill,
               const GemmOutput& output)
      : view_(view), h_(*view.header), g_(g), x_(x), fill_(fill), output_(output) {}

  Work work() const;
  void run_part(int thread, int threads) const;

 private:
  // A thread's memory.
  struct Domain {
    int64_t tiles;  // of a block
    int16_t* rows;
    int64_t row_values, rows_step;  // of a row; from one position to the next
    int16_t* weights;
    int64_t weights_step;
    int32_t* sums;
    uint8_t* fill;  // a pixel of padding
  };
  struct Tile {
    int64_t image;
    WinogradAxis::Tile lines, columns;
  };

  static double estimate(const PackedView& view, const ConvGeometry& g, int64_t tiles,
                         int64_t panels);
  GemmShare share(int thread, int threads) const;
  Domain domain(int64_t tiles) const;
  Tile tile(int64_t index) const;
  WinogradRows transform_inputs(const Domain& d, const Range& tiles) const;
  void multiply(const Domain& d, const WinogradRows& rows, int64_t panel, bool is_last) const;
  void transform_results(const Domain& d, const Range& tiles, int64_t panel) const;
  void look_up(const Range& tiles, const Range& panels) const;
  int64_t pixel(const Tile& t) const {
    return (t.image * g_.out_height + t.lines.first) * g_.out_width + t.columns.first;
  }

  const PackedView& view_;
  const PackedHeader& h_;
  const ConvGeometry g_;
  const uint8_t* x_;
  const uint8_t fill_;
  const GemmOutput output_;
};

}  // namespace fastinfer
