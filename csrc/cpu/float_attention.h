// softmax(scale q k^T + mask) v, a block of queries at a time. Torch-free.
#pragma once

#include <limits>

#include "float_drivers.h"

namespace fastinfer {

// Where a mask lies. Of four dimensions it repeats after `period` samples.
struct MaskSteps {
  MatrixSteps steps;
  int64_t period = 1;

  int64_t offset(int64_t index, const int64_t (&sizes)[2]) const {
    return index / sizes[1] % period * steps.batch[0] + index % sizes[1] * steps.batch[1];
  }
};

// Of a mask of scores: of their shape, or 1 in the place of a size, or a part of the samples. No value where it is none
// of these.
inline std::optional<MaskSteps> mask_steps(const std::vector<int64_t>& shape,
                                           const std::vector<int64_t>& strides,
                                           const std::vector<int64_t>& scores) {
  const size_t rank = scores.size();
  if (shape.size() != rank) return std::nullopt;
  MaskSteps mask{};
  int64_t* const of_dim[] = {&mask.steps.batch[0], &mask.steps.batch[1], &mask.steps.row,
                             &mask.steps.column};
  for (size_t i = 0; i < rank; i++) {
    const bool repeats = i == 0 && rank == 4 && shape[0] > 0 && scores[0] % shape[0] == 0;
    if (shape[i] != scores[i] && shape[i] != 1 && !repeats) return std::nullopt;
    if (shape[i] != 1) *of_dim[i + 4 - rank] = strides[i];
  }
  if (rank == 4) mask.period = std::max<int64_t>(1, shape[0]);
  return mask;
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
  const float* mask = nullptr;  // added to the scores, [queries, keys] as its steps say
  MaskSteps mask_steps = {};
  bool is_causal = false;        // query i has keys 0 to i

  static constexpr int64_t kUnitRows = 24, kMostRows = 64, kManyAttentions = 32;

  // Rows of a block: few, so that threads have equal shares, or all of many small attentions.
  int64_t unit_rows() const {
    const bool is_small = queries <= kMostRows && sizes[0] * sizes[1] >= kManyAttentions;
    return is_small ? std::max<int64_t>(1, queries) : kUnitRows;
  }
  Work work() const {
    const int64_t batch = sizes[0] * sizes[1];
    // An exponential and its passes cost as twenty products.
    return {batch * queries * keys * (width + out_width + 20) * 8,
            batch * divide_up(queries, unit_rows())};
  }
  void run_part(int thread, int threads) const {
    const auto [begin, end] = share_of(work().parts, thread, threads);
    if (begin == end) return;
    const int64_t unit = unit_rows(), each = divide_up(queries, unit);
    const Scratch memory(*this);
    int64_t packed = -1;  // the attention whose keys and values the scratch has
    for (int64_t part = begin; part < end; part++) {
      const int64_t index = part / each, row = part % each * unit;
      run_rows(index, row, std::min(unit, queries - row), memory, packed == index);
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
      const int64_t all = key_floats + value_floats + d.unit_rows() * (d.width + d.keys);
      keys = reinterpret_cast<float*>(scratch<AttentionDriver>(all * int64_t{sizeof(float)}));
      values = keys + key_floats;
      scores = values + value_floats;
      queries = scores + d.unit_rows() * d.keys;
    }
  };

  void run_rows(int64_t index, int64_t row, int64_t rows, const Scratch& memory,
                bool is_packed) const {
    const float* from = q + q_steps.offset(index, sizes) + row * q_steps.row;
    for (int64_t r = 0; r < rows; r++, from += q_steps.row) {
      float* to = memory.queries + r * width;
      if (q_steps.column == 1) {
        table.floats.binary(BinaryFunction::kMul, {from, &scale, to, width, false, true});
        continue;
      }
      for (int64_t i = 0; i < width; i++) to[i] = from[i * q_steps.column] * scale;
    }
    table.floats.matmul({memory.queries, k + k_steps.offset(index, sizes), memory.scores, rows, width, keys,
                         width, 1, k_steps.column, k_steps.row, keys, keys, memory.keys,
                         is_packed});
    bool has_no_key[kMostRows];
    hide_keys(index, row, rows, memory.scores, has_no_key);
    table.softmax({memory.scores, memory.scores, rows, keys});
    for (int64_t r = 0; mask != nullptr && r < rows; r++) {
      if (has_no_key[r]) std::fill_n(memory.scores + r * keys, keys, 0.0f);
    }
    table.floats.matmul({memory.scores, v + v_steps.offset(index, sizes),
                         out + out_steps.offset(index, sizes) + row * out_steps.row, rows, keys, out_width,
                         keys, 1, v_steps.row, v_steps.column, out_steps.row, out_width,
                         memory.values, is_packed});
  }

  static constexpr float kHidden = -std::numeric_limits<float>::infinity();

  // has_no_key: which rows have no other scores than -inf, where there is a mask.
  void hide_keys(int64_t index, int64_t row, int64_t rows, float* scores, bool* has_no_key) const {
    for (int64_t r = 0; is_causal && r < rows; r++) {
      const int64_t seen = std::min(keys, row + r + 1);
      std::fill_n(scores + r * keys + seen, keys - seen, kHidden);
    }
    if (mask == nullptr) return;
    for (int64_t r = 0; r < rows; r++) {
      const MatrixSteps& steps = mask_steps.steps;
      const float* from = mask + mask_steps.offset(index, sizes) + (row + r) * steps.row;
      float* const to = scores + r * keys;
      if (steps.column <= 1) {
        table.floats.binary(BinaryFunction::kAdd, {to, from, to, keys, false, steps.column == 0});
      } else {
        for (int64_t i = 0; i < keys; i++) to[i] += from[i * steps.column];
      }
    }
    for (int64_t r = 0; r < rows; r++) {
      const float* const first = scores + r * keys;
      has_no_key[r] = std::all_of(first, first + keys, [](float f) { return f == kHidden; });
    }
  }
};

}  // namespace fastinfer
