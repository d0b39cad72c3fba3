// Lines of an image one beside the other, column by column: see ../column_run.h.
#pragma once

#include <cstring>

#include "../column_run.h"

namespace fastinfer {
namespace {

inline void column_bytes(const ColumnLines& l, const ColumnRun& run) {
  const auto bytes = static_cast<size_t>(l.channels);
  uint8_t* to = run.to;
  for (int64_t x = 0; x < run.n; x++) {
    for (int64_t line = 0; line < l.count; line++, to += bytes) {
      std::memcpy(to, run.lines[line] + x * run.step, bytes);
    }
  }
}

// For vectors that pick bytes of two.
template <class Vec>
void column_lines(const ColumnLines& l, const ColumnRun& run) {
  static_assert(Vec::kBytes == 64 && kColumnPart * 4 == Vec::kBytes && kColumnLines == 8);
  const int64_t end = run.n * l.channels - kColumnPart;
  if (run.step != l.channels || end < 0) return column_bytes(l, run);
  const uint8_t* line[kColumnLines];
  for (int64_t i = 0; i < kColumnLines; i++) line[i] = run.lines[i < l.count ? i : 0];
  const auto part = [&](uint8_t* to, int64_t at, const uint8_t* index) __attribute__((always_inline)) {
    const auto low = Vec::load_quarters(line[0] + at, line[1] + at, line[2] + at, line[3] + at);
    const auto high = Vec::load_quarters(line[4] + at, line[5] + at, line[6] + at, line[7] + at);
    Vec::store(to, Vec::pick_of_two(low, high, Vec::load(index)));
    Vec::store(to + 64, Vec::pick_of_two(low, high, Vec::load(index + 64)));
  };
  uint8_t* to = run.to;
  int64_t at = 0;
  for (; at <= end; at += l.pixels * l.channels, to += l.bytes) part(to, at, l.first);
  if (at < run.n * l.channels) part(run.to + (run.n - l.pixels) * l.count * l.channels, end, l.last);
}

}  // namespace
}  // namespace fastinfer
