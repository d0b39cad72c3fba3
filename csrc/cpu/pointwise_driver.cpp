#include "pointwise_driver.h"

#include <algorithm>
#include <cstring>

#include "cache_lines.h"
#include "copy_pixels.h"
#include "scratch.h"

namespace fastinfer {
namespace {

// Bytes handled between two looks at the next thing to do: they and a scratch copy stay in L1.
constexpr int64_t kChunk = 4096;

// row(RowPair) for chunks of the thread's share.
template <class Row>
void for_each_chunk(const PairArgs& a, int thread, int threads, const Row& row) {
  if (!a.y_repeats) {
    const Range part = share_of(a.bytes(), kLineBytes, thread, threads);
    for (int64_t i = part.begin; i < part.end; i += kChunk) {
      const int64_t n = std::min(kChunk, part.end - i);
      row(RowPair{a.x + i, a.y + i, n, a.out + i, n});
    }
    return;
  }
  struct Repeated;
  const int64_t c = a.channels;
  const Range part = share_of(a.bytes() > 0 ? a.images * a.pixels : 0, 1, thread, threads);
  const int64_t step = std::max<int64_t>(1, kChunk / std::max<int64_t>(1, c));
  uint8_t* const y = scratch<Repeated>(c + kRepeatSlack);
  int64_t held = -1;
  for (int64_t pixel = part.begin; pixel < part.end;) {
    const int64_t image = pixel / a.pixels;
    if (image != held) {
      for (int64_t at = 0; at < c + kRepeatSlack; at += c) {
        const int64_t n = std::min(c, c + kRepeatSlack - at);
        std::memcpy(y + at, a.y + image * c, static_cast<size_t>(n));
      }
      held = image;
    }
    const int64_t end = std::min({pixel + step, part.end, (image + 1) * a.pixels});
    row(RowPair{a.x + pixel * c, y, c, a.out + pixel * c, (end - pixel) * c});
    pixel = end;
  }
}

// Columns [begin, end) of a part, for `rows` rows from `first` on.
void copy_rows(const CatArgs& a, const CatPart& part, const KernelTable& table, int64_t first,
               int64_t rows, int64_t begin, int64_t end) {
  const int64_t n = end - begin;
  uint8_t* to = a.out + first * a.step + part.first + begin;
  const uint8_t* from = part.x + first * part.step + begin;
  if (part.is_copy()) return copy_pixels(to, a.step, from, part.step, n, rows);
  if (rows == 1 || n >= kChunk) {
    for (int64_t r = 0; r < rows; r++) {
      table.requantize(from + r * part.step, to + r * a.step, n, part.map);
    }
    return;
  }
  // Several whole rows at a time, side by side: short rows would be mostly tails.
  struct Converted;
  const int64_t step = kChunk / n;
  uint8_t* const converted = scratch<Converted>(kChunk);
  for (int64_t r = 0; r < rows; r += step) {
    const int64_t count = std::min(step, rows - r);
    const uint8_t* rows_from = from + r * part.step;
    if (part.step != n) {
      copy_pixels(converted, n, rows_from, part.step, n, count);
      rows_from = converted;
    }
    table.requantize(rows_from, converted, count * n, part.map);
    copy_pixels(to + r * a.step, a.step, converted, n, n, count);
  }
}

// Columns [begin, end) of the parts side by side, for `rows` rows from `first` on.
void cat_rows(const CatArgs& a, const KernelTable& table, int64_t first, int64_t rows,
              int64_t begin, int64_t end) {
  int64_t offset = 0;
  for (int64_t i = 0; i < a.count; i++) {
    const CatPart& part = a.parts[i];
    const int64_t from = std::max(begin, offset), to = std::min(end, offset + part.width);
    if (from < to) copy_rows(a, part, table, first, rows, from - offset, to - offset);
    offset += part.width;
  }
}

}  // namespace

void run_part(const AddArgs& args, const KernelTable& table, int thread, int threads) {
  for_each_chunk(args.pair, thread, threads, [&](const RowPair& rows) {
    table.add(rows, args.map, args.y_multiplier, args.y_zero_point);
    if (args.lookup != nullptr) table.lookup(rows.out, rows.out, rows.n, args.lookup);
  });
}

void run_part(const MulArgs& args, const KernelTable& table, int thread, int threads) {
  for_each_chunk(args.pair, thread, threads,
                 [&](const RowPair& rows) { table.mul(rows, args.map, args.y_zero_point); });
}

// A share is a range of the parts' bytes: rows in part, then whole rows, then a row in part.
void run_part(const CatArgs& args, const KernelTable& table, int thread, int threads) {
  const Range part = share_of(args.rows * args.width, kLineBytes, thread, threads);
  if (part.begin == part.end) return;
  int64_t row = part.begin / args.width;
  if (const int64_t column = part.begin % args.width; column > 0) {
    const int64_t end = std::min(args.width, part.end - row * args.width);
    cat_rows(args, table, row, 1, column, end);
    row++;
  }
  const int64_t whole = part.end / args.width;
  if (row < whole) cat_rows(args, table, row, whole - row, 0, args.width);
  if (const int64_t column = part.end % args.width; column > 0 && row <= whole) {
    cat_rows(args, table, whole, 1, 0, column);
  }
}

Work work_of(const PairArgs& args) {
  const int64_t bytes = args.bytes();
  return {bytes * kMoveWork, args.y_repeats ? args.images * args.pixels : divide_up(bytes, kLineBytes)};
}

Work work_of(const CatArgs& args) {
  const int64_t bytes = args.rows * args.width;
  return {bytes * kMoveWork, divide_up(bytes, kLineBytes)};
}

}  // namespace fastinfer
