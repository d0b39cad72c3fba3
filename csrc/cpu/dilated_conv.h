// A convolution whose kernel's taps lie apart: lines of the image are copied once, and taps that see only
// padding are left out. Torch-free.
//
// For tile registers the channels of one step of K of a copied line lie together, those of all pixels: what
// a register takes is then one piece of memory, which the CPU fetches ahead. A line's padding is that of the
// next one, too.
//
// A wide dilation pads much: at 32 x 32 pixels a dilation of 36 leaves one tap of nine, one of 12 five.
// What such a tap adds is the fill times its weights: nothing where the fill is 0; else it reads a line of
// it. Tile registers take a line at once, other kernels look at each tile's pixels.
#pragma once

#include "conv_operands.h"

namespace fastinfer {

class DilatedConv : ConvOperands {
 public:
  static bool suits(const PackedView& view, const ConvGeometry& g);

  using ConvOperands::ConvOperands;

  Work work() const;
  void run_part(int thread, int threads) const;

 private:
  // How lines are copied: `chunks` pieces of `chunk` bytes of all pixels, which lie `step` bytes apart, then
  // of so much padding as taps read beside real pixels, on either side.
  struct Frame {
    int64_t chunk, chunks, step, padding, pitch, line_bytes;
  };
  // Lines [first, first + count) of an image, and the input lines from `top` on; `base` is the first pixel
  // of the first, after its padding. After the last one comes a line of padding.
  struct Block {
    const uint8_t* base;
    int64_t image, first, count, top, lines;
  };

  static Frame frame_of(const PackedHeader& h, const ConvGeometry& g);
  static bool is_column_inside(const ConvGeometry& g, int64_t tap, const Range& pixels);
  int64_t block_lines(const Frame& frame) const;
  Block copy_lines(const Frame& frame, int64_t image, int64_t first, int64_t count) const;
  void set_runs(const Frame& frame, const Block& block, int64_t line, const Range& pixels,
                GemmTiles& run) const;
  void run_panels(const Frame& frame, const Block& block, int64_t p, int64_t panels,
                  bool is_last) const;
};

}  // namespace fastinfer
