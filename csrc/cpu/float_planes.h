// Images as planes for sparse float layers: of every input the values at neighbouring positions of
// the result lie side by side. Torch-free.
#pragma once

#include <cstdint>
#include <vector>

#include "conv_shape.h"
#include "work.h"

namespace fastinfer {

// What input k of a group meets at position q of an image is
// base[image * image_step + group * group_step + offsets[k] + q].
struct FloatPlanes {
  const float* base;
  int64_t images, image_step, group_step;
  std::vector<int64_t> offsets;
  int64_t positions;  // of an image
  // Positions are an image's pixels, row by row, rows `pitch` apart; those from `width` on are of
  // no use.
  int64_t width, pitch;
};

// The planes of a convolution. An image is cut by the strides into one for each remainder of row
// and column, so that what a tap meets along a row of results lies side by side; padding is around
// them. Where there is neither stride nor padding the image is its own planes.
class ImagePlanes {
 public:
  // channels of a group and what they are multiplied by: k counts (channel, kh, kw).
  ImagePlanes(const ConvGeometry& g, int64_t groups);

  bool is_copied() const { return copied_; }
  int64_t floats() const { return g_.batch * g_.channels * channel_step_; }
  Work work() const { return {floats() * kMoveWork, g_.batch * g_.channels}; }
  // The share of `thread` of 0..threads - 1 of the copy of x into `planes`.
  void run_part(const float* x, float* planes, int thread, int threads) const;
  // base: the copy, or x.
  FloatPlanes planes(const float* base) const;

 private:
  ConvGeometry g_;
  int64_t groups_;
  bool copied_;
  std::vector<int64_t> rows_, columns_;  // remainders that some tap meets
  int64_t height_, width_;               // of a plane
  int64_t plane_, channel_step_;         // floats
};

// to[c * to_step + r] = from[r * from_step + c]
void transpose(const float* from, int64_t from_step, int64_t rows, int64_t columns, float* to,
               int64_t to_step);

}  // namespace fastinfer
