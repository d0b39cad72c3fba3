// A convolution whose kernels read the image in place: no windows are copied. Torch-free.
//
// In NHWC the inputs of neighbouring output pixels of a line lie a fixed distance apart, and those of
// one row of the convolution kernel next to each other: a tile of output pixels is a tile of a GEMM
// whose rows are runs of bytes. Padding is made by copying each line of the image once, with a frame,
// which also brings together pixels that lie apart. Of few channels the lines of a row of windows are copied
// one beside the other (kFlagColumns): then a window is one run.
#pragma once

#include "conv_operands.h"

namespace fastinfer {

class DirectConv : ConvOperands {
 public:
  // Whether this is possible, and faster than copying windows.
  static bool suits(const PackedView& view, const ConvGeometry& g);

  // Whether kernels reach all of a window, for weights that no other way takes.
  static bool reaches(const PackedHeader& h, const ConvGeometry& g);

  // x: NHWC. fill: what padding holds.
  DirectConv(const PackedView& view, const ConvGeometry& g, const uint8_t* x, uint8_t fill,
             const GemmOutput& output);

  Work work() const;
  void run_part(int thread, int threads) const;

 private:
  // Input lines of output lines from `first` on; line y of them starts at base + y * line_bytes_.
  struct Block {
    const uint8_t* base;
    int64_t image, first, count;
  };

  bool is_framed() const {
    const bool reads_past = joins_groups() && g_.channels % h_.nr != 0;
    return by_columns() || g_.pad_h > 0 || g_.pad_w > 0 || h_.run_quads() * 4 != h_.run || !g_.is_dense() ||
           reads_past;
  }
  bool by_columns() const { return h_.has(kFlagColumns); }
  bool joins_groups() const { return static_cast<GemmForm>(h_.form) == GemmForm::kGroups; }
  void part(const Range& lines, const Range& panels) const;
  const uint8_t* frame(int64_t image, int64_t first, int64_t count) const;
  const uint8_t* frame_columns(int64_t image, int64_t first, int64_t count) const;
  GemmTiles window_runs() const;
  int64_t run_tiles(GemmTiles& run, int64_t p, int64_t m) const;
  void run_panels(const Block& block, const GemmTiles& window, int64_t p, int64_t panels,
                  bool is_last) const;

  const GemmKernels* kernels_;
  int64_t lines_;        // output lines of a tile
  int64_t line_bytes_;   // of the image that the kernels read
  int64_t line_step_;    // to the input of the next output line
  int64_t near_bytes_;   // the input lines of a tile
  int64_t block_lines_;  // output lines whose input lines stay in L2 while all panels pass
};

}  // namespace fastinfer
