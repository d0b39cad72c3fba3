// Lines of an image one beside the other, column by column. Torch-free.
#pragma once

#include <cstdint>

namespace fastinfer {

constexpr int kColumnLines = 8, kColumnPart = 16;

// `count` lines of an image, in pixels of `channels` bytes: all lines' first pixel, all lines' second one. Vectors take
// kColumnPart bytes of each line at a time, `pixels` whole pixels, the first of them or the last, and put `bytes` of
// them where an index says: byte line * kColumnPart + i is byte i of a line's.
struct ColumnLines {
  int64_t count, channels, pixels, bytes = 0;
  alignas(64) uint8_t first[kColumnLines * kColumnPart] = {}, last[kColumnLines * kColumnPart] = {};

  // Whether vectors take a pixel of so many bytes of so many lines at once.
  static constexpr bool fit(int64_t lines, int64_t pixel_bytes) {
    return lines <= kColumnLines && pixel_bytes <= kColumnPart;
  }

  // Of what fits.
  ColumnLines(int64_t lines, int64_t pixel_bytes)
      : count(lines), channels(pixel_bytes), pixels(kColumnPart / pixel_bytes) {
    const int64_t rest = kColumnPart - pixels * channels;
    for (int64_t p = 0; p < pixels; p++) {
      for (int64_t line = 0; line < count; line++) {
        for (int64_t c = 0; c < channels; c++, bytes++) {
          first[bytes] = static_cast<uint8_t>(line * kColumnPart + p * channels + c);
          last[bytes] = static_cast<uint8_t>(first[bytes] + rest);
        }
      }
    }
  }
};

// n pixels of each line, of `step` bytes; no byte past their last is read. Up to kColumnSlack bytes past the last column
// may change.
constexpr int64_t kColumnSlack = 128;

struct ColumnRun {
  const uint8_t* const* lines;
  int64_t step, n;
  uint8_t* to;
};

}  // namespace fastinfer
