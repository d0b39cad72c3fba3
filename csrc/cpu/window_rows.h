// The windows of an NHWC image as rows of a GEMM. Torch-free.
#pragma once

#include <algorithm>
#include <cstring>

#include "conv_shape.h"
#include "gemm_driver.h"

namespace fastinfer {

// Overlapping whole moves instead of a call: windows of a first layer are a few bytes wide.
inline void copy_bytes(uint8_t* to, const uint8_t* from, int64_t n) {
  if (n >= 8 && n <= 16) {
    uint64_t first, last;
    std::memcpy(&first, from, 8);
    std::memcpy(&last, from + n - 8, 8);
    std::memcpy(to, &first, 8);
    std::memcpy(to + n - 8, &last, 8);
    return;
  }
  std::memcpy(to, from, static_cast<size_t>(n));
}

// Row m is output pixel m's window in the order (kh, kw, c), the rows of the kernel `pitch` bytes
// apart, or in the order (kw, kh, c); padding holds `fill`.
struct WindowRows {
  const uint8_t* x;  // NHWC
  ConvGeometry g;
  int64_t channels;  // of one group
  int64_t pitch;
  uint8_t fill;
  bool by_columns;

  bool is_direct() const {
    return g.kh == 1 && g.kw == 1 && g.stride_h == 1 && g.stride_w == 1 && g.pad_h == 0 &&
           g.pad_w == 0;
  }
  const uint8_t* base(int64_t group) const { return x + group * channels; }
  int64_t stride() const { return g.pixel_step; }
  int64_t bytes(int64_t) const { return g.in_bytes(); }

  // Rows [row, row + count), `step` bytes apart. Up to kCopySlack bytes after a row may change.
  void copy(int64_t row, int64_t count, int64_t group, uint8_t* to, int64_t step) const {
    int64_t ox = row % g.out_width, oy = row / g.out_width % g.out_height;
    int64_t image = row / g.out_width / g.out_height;
    while (count > 0) {
      const int64_t here = std::min(count, g.out_width - ox);
      copy_line(image, oy, ox, here, group, to, step);
      to += here * step;
      count -= here;
      ox = 0;
      if (++oy == g.out_height) {
        oy = 0;
        image++;
      }
    }
  }

 private:
  // With one group, no dilation and pixels that lie together a kernel row is one run of bytes.
  bool is_run() const {
    return !by_columns && channels == g.channels && g.dilation_w == 1 && (g.is_dense() || g.kw == 1);
  }

  // Pixels [ox, ox + count) of one output row.
  void copy_line(int64_t image, int64_t oy, int64_t ox, int64_t count, int64_t group, uint8_t* to,
                 int64_t step) const {
    const int64_t y0 = oy * g.stride_h - g.pad_h, bytes = g.kw * channels;
    const bool is_short = is_run() && bytes <= kCopySlack && y0 >= 0 &&
                          y0 + (g.kh - 1) * g.dilation_h < g.height;
    const uint8_t* end = x + (g.batch * g.height * g.width - 1) * g.pixel_step + g.channels;
    const int64_t line = g.width * g.pixel_step;
    for (const int64_t last = ox + count; ox < last; ox++, to += step) {
      const int64_t x0 = ox * g.stride_w - g.pad_w;
      if (!is_short || x0 < 0 || x0 + g.kw > g.width) {
        copy_window(image, oy, ox, group, to);
        continue;
      }
      // Windows from here on that lie inside the image, and whose whole moves lie inside the tensor.
      const uint8_t* from = x + ((image * g.height + y0) * g.width + x0) * g.pixel_step;
      const int64_t row = g.dilation_h * line, next = g.stride_w * g.pixel_step;
      const int64_t room = end - (from + (g.kh - 1) * row + kCopySlack);
      if (room < 0) {
        copy_window(image, oy, ox, group, to);
        continue;
      }
      const int64_t inside =
          std::min({last - ox, (g.width - g.kw - x0) / g.stride_w + 1, room / next + 1});
      copy_short(from, inside, next, row, to, step);
      ox += inside - 1;
      to += (inside - 1) * step;
    }
  }

  // `count` windows of g.kh kernel rows of at most kCopySlack bytes. Whole moves: what one writes too
  // much, the next one overwrites.
  void copy_short(const uint8_t* from, int64_t count, int64_t next, int64_t row, uint8_t* to,
                  int64_t step) const {
    const int64_t rows = g.kh;
    for (int64_t i = 0; i < count; i++, from += next, to += step) {
      const uint8_t* line = from;
      uint8_t* at = to;
      for (int64_t k = 0; k < rows; k++, line += row, at += pitch) {
        std::memcpy(at, line, kCopySlack);
      }
    }
  }

  void copy_window(int64_t image, int64_t oy, int64_t ox, int64_t group, uint8_t* to) const {
    const int64_t x0 = ox * g.stride_w - g.pad_w, y0 = oy * g.stride_h - g.pad_h;
    const uint8_t* plane = base(group) + image * g.height * g.width * g.pixel_step;
    const int64_t first = x0 < 0 ? std::min(-x0, g.kw) : 0;
    const int64_t last = std::max(first, std::min(g.kw, g.width - x0));
    for (int64_t i = 0; i < g.kh; i++) {
      const int64_t y = y0 + i * g.dilation_h;
      uint8_t* row_to = to + i * pitch;
      if (!by_columns && (y < 0 || y >= g.height)) {
        std::memset(row_to, fill, static_cast<size_t>(g.kw * channels));
        continue;
      }
      const uint8_t* line = plane + y * g.width * g.pixel_step;
      if (is_run()) {
        if (first > 0) std::memset(row_to, fill, static_cast<size_t>(first * channels));
        if (last > first) {
          copy_bytes(row_to + first * channels, line + (x0 + first) * g.pixel_step,
                     (last - first) * channels);
        }
        if (last < g.kw) {
          std::memset(row_to + last * channels, fill,
                      static_cast<size_t>((g.kw - last) * channels));
        }
        continue;
      }
      for (int64_t j = 0; j < g.kw; j++) {
        const int64_t at = x0 + j * g.dilation_w;
        uint8_t* tap = by_columns ? to + (j * g.kh + i) * channels : row_to + j * channels;
        if (y < 0 || y >= g.height || at < 0 || at >= g.width) {
          std::memset(tap, fill, static_cast<size_t>(channels));
        } else {
          copy_bytes(tap, line + at * g.pixel_step, channels);
        }
      }
    }
  }
};

}  // namespace fastinfer
