#include "float_planes.h"

#include <algorithm>
#include <cstring>

namespace fastinfer {
namespace {

// The remainders by `stride` of taps `dilation` apart.
std::vector<int64_t> remainders(int64_t taps, int64_t dilation, int64_t stride) {
  std::vector<int64_t> found;
  for (int64_t t = 0; t < taps; t++) {
    const int64_t remainder = t * dilation % stride;
    if (std::find(found.begin(), found.end(), remainder) == found.end()) found.push_back(remainder);
  }
  return found;
}

int64_t place_of(const std::vector<int64_t>& all, int64_t one) {
  return std::find(all.begin(), all.end(), one) - all.begin();
}

// to[j] = row[j * stride + first] where that is in 0..width, else 0.
void copy_row(const float* row, int64_t width, int64_t first, int64_t stride, float* to,
              int64_t count) {
  const int64_t begin = std::min(count, first < 0 ? divide_up(-first, stride) : 0);
  const int64_t end = std::clamp(divide_up(width - first, stride), begin, count);
  std::fill(to, to + begin, 0.0f);
  if (stride == 1) {
    std::memcpy(to + begin, row + begin + first, static_cast<size_t>(end - begin) * sizeof(float));
  } else {
    for (int64_t j = begin; j < end; j++) to[j] = row[j * stride + first];
  }
  std::fill(to + end, to + count, 0.0f);
}

// Four floats: the compiler makes of them what the CPU has.
using Four = float __attribute__((vector_size(16)));
using Places = int __attribute__((vector_size(16)));

void transpose_four(const float* from, int64_t from_step, float* to, int64_t to_step) {
  Four rows[4];
  for (int i = 0; i < 4; i++) std::memcpy(&rows[i], from + i * from_step, sizeof(Four));
  constexpr Places kLow = {0, 4, 1, 5}, kHigh = {2, 6, 3, 7};
  constexpr Places kFirst = {0, 1, 4, 5}, kSecond = {2, 3, 6, 7};
  const Four a = __builtin_shuffle(rows[0], rows[1], kLow);
  const Four b = __builtin_shuffle(rows[2], rows[3], kLow);
  const Four c = __builtin_shuffle(rows[0], rows[1], kHigh);
  const Four d = __builtin_shuffle(rows[2], rows[3], kHigh);
  const Four columns[4] = {__builtin_shuffle(a, b, kFirst), __builtin_shuffle(a, b, kSecond),
                           __builtin_shuffle(c, d, kFirst), __builtin_shuffle(c, d, kSecond)};
  for (int i = 0; i < 4; i++) std::memcpy(to + i * to_step, &columns[i], sizeof(Four));
}

void transpose_tile(const float* from, int64_t from_step, int64_t rows, int64_t columns, float* to,
                    int64_t to_step) {
  const int64_t fours = columns / 4 * 4;
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4) {
    for (int64_t c = 0; c < fours; c += 4) {
      transpose_four(from + r * from_step + c, from_step, to + c * to_step + r, to_step);
    }
  }
  for (int64_t row = 0; row < rows; row++) {
    for (int64_t c = row < r ? fours : 0; c < columns; c++) {
      to[c * to_step + row] = from[row * from_step + c];
    }
  }
}

}  // namespace

ImagePlanes::ImagePlanes(const ConvGeometry& g, int64_t groups)
    : g_(g),
      groups_(groups),
      copied_(g.stride_h > 1 || g.stride_w > 1 || g.pad_h > 0 || g.pad_w > 0),
      rows_(remainders(g.kh, g.dilation_h, g.stride_h)),
      columns_(remainders(g.kw, g.dilation_w, g.stride_w)),
      height_(divide_up(g.height + 2 * g.pad_h, g.stride_h)),
      width_(divide_up(g.width + 2 * g.pad_w, g.stride_w)),
      plane_(height_ * width_),
      channel_step_(plane_ * static_cast<int64_t>(rows_.size() * columns_.size())) {}

void ImagePlanes::run_part(const float* x, float* planes, int thread, int threads) const {
  const Range share = share_of(g_.batch * g_.channels, thread, threads);
  for (int64_t channel = share.begin; channel < share.end; channel++) {
    const float* image = x + channel * g_.height * g_.width;
    float* to = planes + channel * channel_step_;
    for (const int64_t row : rows_) {
      for (const int64_t column : columns_) {
        for (int64_t i = 0; i < height_; i++, to += width_) {
          const int64_t from = i * g_.stride_h + row - g_.pad_h;
          if (from < 0 || from >= g_.height) {
            std::fill(to, to + width_, 0.0f);
          } else {
            copy_row(image + from * g_.width, g_.width, column - g_.pad_w, g_.stride_w, to, width_);
          }
        }
      }
    }
  }
}

FloatPlanes ImagePlanes::planes(const float* base) const {
  const int64_t channels = g_.channels / groups_;
  FloatPlanes planes{base,
                     g_.batch,
                     g_.channels * channel_step_,
                     channels * channel_step_,
                     {},
                     (g_.out_height - 1) * width_ + g_.out_width,
                     g_.out_width,
                     width_};
  std::vector<int64_t> taps;
  for (int64_t h = 0; h < g_.kh; h++) {
    const int64_t down = h * g_.dilation_h, row = place_of(rows_, down % g_.stride_h);
    for (int64_t w = 0; w < g_.kw; w++) {
      const int64_t right = w * g_.dilation_w, column = place_of(columns_, right % g_.stride_w);
      const int64_t plane = row * static_cast<int64_t>(columns_.size()) + column;
      taps.push_back(plane * plane_ + down / g_.stride_h * width_ + right / g_.stride_w);
    }
  }
  planes.offsets.reserve(static_cast<size_t>(channels) * taps.size());
  for (int64_t c = 0; c < channels; c++) {
    for (const int64_t tap : taps) planes.offsets.push_back(c * channel_step_ + tap);
  }
  return planes;
}

// By tiles whose lines stay in L1 until all of them is read and written, one after the other along
// the matrix whose rows are further apart: that is a few streams, the other one lies in a cache.
void transpose(const float* from, int64_t from_step, int64_t rows, int64_t columns, float* to,
               int64_t to_step) {
  constexpr int64_t kTile = 16;
  const auto tile = [&](int64_t r, int64_t c) {
    transpose_tile(from + r * from_step + c, from_step, std::min(kTile, rows - r),
                   std::min(kTile, columns - c), to + c * to_step + r, to_step);
  };
  if (from_step > to_step) {
    for (int64_t r = 0; r < rows; r += kTile) {
      for (int64_t c = 0; c < columns; c += kTile) tile(r, c);
    }
  } else {
    for (int64_t c = 0; c < columns; c += kTile) {
      for (int64_t r = 0; r < rows; r += kTile) tile(r, c);
    }
  }
}

}  // namespace fastinfer
