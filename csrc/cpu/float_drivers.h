// What float steps between int8 layers cost, and how threads split them. Torch-free.
#pragma once

#include <array>
#include <optional>
#include <vector>

#include "kernel_table.h"
#include "scratch.h"
#include "work.h"

namespace fastinfer {

// What lies in memory before the reduced dimensions, in them, and behind them; no value where they do not lie
// together. Images are NHWC in memory, other shapes row-major.
inline std::optional<std::array<int64_t, 3>> reduced_parts(const std::vector<int64_t>& shape,
                                                           const std::vector<bool>& is_reduced) {
  static constexpr size_t kPixelsFirst[] = {0, 2, 3, 1};
  std::array<int64_t, 3> parts = {1, 1, 1};
  size_t part = 0;
  for (size_t i = 0; i < shape.size(); i++) {
    const size_t dim = shape.size() == 4 ? kPixelsFirst[i] : i;
    if (is_reduced[dim] && part == 0) part = 1;
    if (!is_reduced[dim] && part == 1 && shape[dim] != 1) part = 2;
    if (is_reduced[dim] && part != 1) return std::nullopt;
    parts[part] *= shape[dim];
  }
  return parts;
}

// Of x, [outer, n, inner], what every n numbers make: [outer, inner].
struct ReduceDriver {
  const KernelTable& table;
  ReduceFunction function;
  const float* x;
  float* out;
  int64_t outer, n, inner;

  static constexpr int64_t kUnit = 64;  // of columns: whole lines of cache

  Work work() const {
    const int64_t parts = inner == 1 ? outer : outer * divide_up(inner, kUnit);
    return {outer * n * inner * kMoveWork, parts};
  }
  void run_part(int thread, int threads) const {
    const auto [begin, end] = share_of(work().parts, thread, threads);
    if (inner == 1) {
      if (begin < end) {
        table.floats.reduce_rows(function, x + begin * n, out + begin, end - begin, n);
      }
      return;
    }
    const int64_t units = divide_up(inner, kUnit);
    for (int64_t part = begin; part < end; part++) {
      const int64_t row = part / units, c = part % units * kUnit;
      table.floats.reduce_columns(function, {x + row * n * inner + c, out + row * inner + c, n,
                                             inner, std::min(kUnit, inner - c)});
    }
  }
};

// Group norm of images in NHWC memory.
struct GroupNormDriver {
  const KernelTable& table;
  const float* x;
  float* out;
  int64_t images, pixels, channels, groups;
  const float *weight, *bias;  // of every channel, or null
  float eps;

  // Channels that a thread takes: whole groups and, where there are so many, lines of cache.
  int64_t unit() const {
    const int64_t width = channels / groups;
    int64_t unit = width;
    while (unit % kLineFloats != 0 && unit < channels) unit += width;
    return std::min(unit, channels);
  }
  Work work() const {
    if (channels == 0) return {0, 0};
    // Three passes.
    return {3 * images * pixels * channels * kMoveWork, images * divide_up(channels, unit())};
  }
  void run_part(int thread, int threads) const {
    const auto [begin, end] = share_of(work().parts, thread, threads);
    if (begin == end) return;
    const int64_t once = unit(), units = divide_up(channels, once);
    auto* memory = reinterpret_cast<float*>(
        scratch<GroupNormDriver>(group_norm_scratch(once) * int64_t{sizeof(float)}));
    for (int64_t part = begin; part < end; part++) {
      const int64_t image = part / units, c = part % units * once;
      const int64_t at = image * pixels * channels + c;
      table.floats.group_norm({x + at, out + at, pixels, channels, std::min(once, channels - c),
                               channels / groups, weight == nullptr ? nullptr : weight + c,
                               bias == nullptr ? nullptr : bias + c, eps, memory});
    }
  }

 private:
  static constexpr int64_t kLineFloats = 16;
};

// Where a matrix of some lies: floats from one index to the next, 0 where it repeats.
struct MatrixSteps {
  int64_t batch[2], row, column;

  // Of matrix `index` of sizes[0] * sizes[1].
  int64_t offset(int64_t index, const int64_t (&sizes)[2]) const {
    return index / sizes[1] * batch[0] + index % sizes[1] * batch[1];
  }
};

// Products of matrices, sizes[0] * sizes[1] of them.
struct MatmulDriver {
  const KernelTable& table;
  const float *a, *b;
  float* out;
  int64_t sizes[2], rows, k, columns;
  MatrixSteps a_steps, b_steps, out_steps;  // columns of the result lie side by side

  static constexpr int64_t kUnitRows = 24, kFewRows = 128;

  // A thread takes columns where there are few rows: those of b are then brought together once, if they must be.
  bool splits_columns() const {
    return columns > kMatmulPanel && rows < (b_steps.column != 1 ? kFewRows : 2 * kUnitRows);
  }
  int64_t units() const {
    return splits_columns() ? divide_up(columns, kMatmulPanel) : divide_up(rows, kUnitRows);
  }
  Work work() const {
    // Floats: four times as wide as int8, and a product and a sum instead of one instruction.
    const int64_t batch = sizes[0] * sizes[1];
    return {batch * rows * (k + 1) * columns * 8, batch * units()};
  }
  void run_part(int thread, int threads) const {
    const auto [begin, end] = share_of(work().parts, thread, threads);
    if (begin == end) return;
    const int64_t each = units();
    auto* memory = reinterpret_cast<float*>(
        scratch<MatmulDriver>(matmul_scratch(k, columns, matmul_group(k)) * int64_t{sizeof(float)}));
    for (int64_t part = begin; part < end;) {
      const int64_t matrix = part / each, first = part % each;
      const int64_t last = std::min(each, first + end - part);
      run_units(matrix, first, last, memory);
      part += last - first;
    }
  }

 private:
  void run_units(int64_t matrix, int64_t first, int64_t last, float* memory) const {
    MatmulRun run{a + a_steps.offset(matrix, sizes), b + b_steps.offset(matrix, sizes),
                  out + out_steps.offset(matrix, sizes), rows, k, columns, a_steps.row,
                  a_steps.column, b_steps.row, b_steps.column, out_steps.row, matmul_group(k),
                  memory, false};
    if (splits_columns()) {
      const int64_t c = first * kMatmulPanel;
      run.b += c * b_steps.column;
      run.out += c;
      run.columns = std::min(columns, last * kMatmulPanel) - c;
    } else {
      const int64_t r = first * kUnitRows;
      run.a += r * a_steps.row;
      run.out += r * out_steps.row;
      run.rows = std::min(rows, last * kUnitRows) - r;
    }
    table.floats.matmul(run);
  }
};

}  // namespace fastinfer
