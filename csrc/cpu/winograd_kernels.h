// What Winograd's convolution asks of an instruction set: see micro/winograd.h. Torch-free.
#pragma once

#include <cstdint>

#include "../epilogue.h"
#include "../packed.h"

namespace fastinfer {

// A tile is 4 x 4 results of 3 x 3 taps. It reads 6 x 6 pixels, of which 36 matrices are multiplied, one for
// each position: a row is a tile's inputs, a column the weights of a channel of the result.
constexpr int kWinogradSide = 6, kWinogradOut = 4;
constexpr int kWinogradPositions = kWinogradSide * kWinogradSide;
constexpr int kWinogradRows = 14;  // of a matrix at a time, at most
constexpr int kWinogradLateRows = 6;  // of each of two
constexpr int kWinogradBlock = 64;  // a row has a multiple of so many channels

// A tile at an edge with 3 results or fewer in a dimension has 5 or 4 positions there, of these levels.
constexpr int kWinogradLevels = 3, kWinogradLevel[kWinogradSide] = {0, 0, 0, 1, 2, 0};
// Positions of a dimension with so many results, as many as pixels that are read; 1 is taken for 2.
constexpr int winograd_side(int results) { return (results < 2 ? 2 : results) + 2; }

// Where a tile's row lies in a matrix, in values, by the levels of its position.
struct WinogradPlace {
  int64_t at[kWinogradLevels][kWinogradLevels];
};

// Whether sums of a convolution are found whole: they lie in -kWinogradSum..kWinogradSum - 1, since of
// 24 * 24 times a sum the lower 32 bits are known.
constexpr int64_t kWinogradSum = 1 << 25;

// A tile's pixels into its row of every matrix that it has a position in. Of kRows the even ones of a block of
// channels come before the odd ones, and absent channels are 0; of kWords they come in order.
struct WinogradInput {
  const uint8_t* pixels[kWinogradPositions];  // line by line
  int lines, columns;  // of results
  int64_t channels;
  int16_t* to;
  int64_t position_step;  // values from one matrix to the next
  WinogradPlace place;
};

// Lines of positions whose weights are made of the same sums, two at a time.
constexpr int kWinogradPairs[3][2] = {{0, 5}, {1, 2}, {3, 4}};

// A panel's weights into the columns of the matrices of two lines: [quad][pair of channels][nr][2] each.
struct WinogradWeights {
  const void* weight;  // int8 [tap][quad][nr][4], of kWords int16 [tap][quad][pair][nr][2]
  int64_t quads;
  int pair;  // of kWinogradPairs
  int16_t* to;
  int64_t position_step;
};

// Rows of one matrix times a panel's columns.
struct WinogradProducts {
  const int16_t* rows;
  int64_t row_bytes;
  const int16_t* weight;
  int64_t quads;
  int32_t* sums;  // [row][nr]
};

// The same of two positions of a line, kWinogradPairs[...], whose columns are made while they are multiplied.
struct WinogradLateProducts {
  const int16_t* rows[2];
  int64_t row_bytes;
  const int16_t* weight;  // [quad][pair of channels][vector of nr][3 columns of taps][a vector]
  int64_t quads;
  int32_t* sums[2];  // [row][nr]
};

// A tile's products of a panel into its results.
struct WinogradOutput {
  const int32_t* sums;
  int64_t position_step;
  WinogradPlace place;
  int lines, columns;  // of results
  int64_t line_step;  // elements of the result from one line to the next
};

// Estimated cycles.
struct WinogradCost {
  float input;    // of 64 channels of a tile
  float weight;   // of an input channel and a vector of results
  float product;  // of an input channel, a tile's position and a vector
  float output;   // of a tile and a vector
  // Where windows are multiplied: of a pixel, a vector and a quad of k; beside that of a pixel and a vector.
  float direct, direct_result;
  float few, many;  // no cycles: what Winograd leaves of a layer's time, of few and of many channels
};

// Kernels for few tiles: a weight is brought into the domain by lines only, and by columns as it is multiplied.
struct WinogradLate {
  // Of 1 to kWinogradLateRows rows, by pair of positions; the last ones of kWinogradPairs[2]'s first alone.
  using Products = void (*)(const WinogradLateProducts&);
  void (*weights)(const WinogradWeights&);  // null: there are none
  Products products[4][kWinogradLateRows];
};

// For panels of this form, of `nr` channels; 0: there are none.
struct WinogradKernels {
  GemmForm form;
  int nr;
  int most_rows;  // that `products` takes
  WinogradCost cost;
  void (*input)(const WinogradInput&);
  void (*weights)(const WinogradWeights&);
  void (*products[kWinogradRows])(const WinogradProducts&);  // of 1 to most_rows rows
  void (*output)(const WinogradOutput&, const Epilogue&);    // ldc: from a column to the next
  WinogradLate late;
};

}  // namespace fastinfer
