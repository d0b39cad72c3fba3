// softmax(scale q k^T + mask) v, a block of queries at a time. Torch-free.
#pragma once

#include <limits>

#include "float_drivers.h"

namespace fastinfer {

// Steps of a mask of scores: of their shape, or 1 in the place of a size. No value where it is neither.
inline std::optional<MatrixSteps> mask_steps(const std::vector<int64_t>& shape,
                                             const std::vector<int64_t>& strides,
                                             const std::vector<int64_t>& scores) {
  const size_t rank = scores.size();
  if (shape.size() != rank) return std::nullopt;
  MatrixSteps steps{};
  int64_t* const of_dim[] = {&steps.batch[0], &steps.batch[1], &steps.row, &steps.column};
  for (size_t i = 0; i < rank; i++) {
    if (shape[i] != scores[i] && shape[i] != 1) return std::nullopt;
    if (shape[i] != 1) *of_dim[i + 4 - rank] = strides[i];
  }
  return steps;
}

// sizes[0] * sizes[1] attentions of `queries` rows of `width` floats to `keys` rows of keys and of `out_width`
// values. Rows of the result are dense. A query whose mask leaves it no key answers zeros.
struct AttentionDriver {
  const KernelTable& table;
  const float *q, *k, *v;
  float* out;
  int64_t sizes[2], queries, keys, width, out_width;
  float scale;
  MatrixSteps q_steps, k_steps, v_steps, out_steps;
  const float* mask = nullptr;   // added to the scores, [queries, keys] as its steps say
  MatrixSteps mask_steps = {};
  bool is_causal = false;        // query i has keys 0 to i

  static constexpr int64_t kUnitRows = 24;

  Work work() const {
    const int64_t batch = sizes[0] * sizes[1];
    // An exponential and its passes cost as twenty products.
    return {batch * queries * keys * (width + out_width + 20) * 8,
            batch * divide_up(queries, kUnitRows)};
  }
  void run_part(int thread, int threads) const {
    const auto [begin, end] = share_of(work().parts, thread, threads);
    if (begin == end) return;
    const int64_t each = divide_up(queries, kUnitRows);
    const Scratch memory(*this);
    int64_t packed = -1;  // the attention whose keys and values the scratch has
    for (int64_t part = begin; part < end; part++) {
      const int64_t index = part / each, row = part % each * kUnitRows;
      run_rows(index, row, std::min(kUnitRows, queries - row), memory, packed == index);
      packed = index;
    }
  }

 private:
  // A thread's: keys and values side by side, and a block's queries and scores.
  struct Scratch {
    float *keys, *values, *queries, *scores;

    explicit Scratch(const AttentionDriver& d) {
      const int64_t key_floats = matmul_scratch(d.width, d.keys, d.keys);
      const int64_t value_floats = matmul_scratch(d.keys, d.out_width, d.out_width);
      const int64_t all = key_floats + value_floats + kUnitRows * (d.width + d.keys);
      keys = reinterpret_cast<float*>(scratch<AttentionDriver>(all * int64_t{sizeof(float)}));
      values = keys + key_floats;
      scores = values + value_floats;
      queries = scores + kUnitRows * d.keys;
    }
  };

  void run_rows(int64_t index, int64_t row, int64_t rows, const Scratch& memory,
                bool is_packed) const {
    const float* from = q + q_steps.offset(index, sizes) + row * q_steps.row;
    for (int64_t r = 0; r < rows; r++) {
      float* to = memory.queries + r * width;
      for (int64_t i = 0; i < width; i++) {
        to[i] = from[r * q_steps.row + i * q_steps.column] * scale;
      }
    }
    table.floats.matmul({memory.queries, k + k_steps.offset(index, sizes), memory.scores, rows, width, keys,
                         width, 1, k_steps.column, k_steps.row, keys, keys, memory.keys,
                         is_packed});
    float most[kUnitRows];
    hide_keys(index, row, rows, memory.scores, most);
    table.softmax({memory.scores, memory.scores, rows, keys});
    for (int64_t r = 0; mask != nullptr && r < rows; r++) {
      if (most[r] == kHidden) std::fill_n(memory.scores + r * keys, keys, 0.0f);
    }
    table.floats.matmul({memory.scores, v + v_steps.offset(index, sizes),
                         out + out_steps.offset(index, sizes) + row * out_steps.row, rows, keys, out_width,
                         keys, 1, v_steps.row, v_steps.column, out_steps.row, out_width,
                         memory.values, is_packed});
  }

  static constexpr float kHidden = -std::numeric_limits<float>::infinity();

  // most: of each row the largest score, where there is a mask.
  void hide_keys(int64_t index, int64_t row, int64_t rows, float* scores, float* most) const {
    for (int64_t r = 0; is_causal && r < rows; r++) {
      const int64_t seen = std::min(keys, row + r + 1);
      std::fill_n(scores + r * keys + seen, keys - seen, kHidden);
    }
    if (mask == nullptr) return;
    for (int64_t r = 0; r < rows; r++) {
      const float* from = mask + mask_steps.offset(index, sizes) + (row + r) * mask_steps.row;
      float* const to = scores + r * keys;
      if (mask_steps.column <= 1) {
        table.floats.binary(BinaryFunction::kAdd, {to, from, to, keys, false, mask_steps.column == 0});
      } else {
        for (int64_t i = 0; i < keys; i++) to[i] += from[i * mask_steps.column];
      }
    }
    table.floats.reduce_rows(ReduceFunction::kAmax, scores, most, rows, keys);
  }
};

}  // namespace fastinfer
