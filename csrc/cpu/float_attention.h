// softmax(scale q k^T) v, a block of queries at a time. Torch-free.
#pragma once

#include "float_drivers.h"

namespace fastinfer {

// sizes[0] * sizes[1] attentions of `queries` rows of `width` floats to `keys` rows of keys and of `out_width`
// values. Rows of the result are dense.
struct AttentionDriver {
  const KernelTable& table;
  const float *q, *k, *v;
  float* out;
  int64_t sizes[2], queries, keys, width, out_width;
  float scale;
  MatrixSteps q_steps, k_steps, v_steps, out_steps;

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
    table.softmax({memory.scores, memory.scores, rows, keys});
    table.floats.matmul({memory.scores, v + v_steps.offset(index, sizes),
                         out + out_steps.offset(index, sizes) + row * out_steps.row, rows, keys, out_width,
                         keys, 1, v_steps.row, v_steps.column, out_steps.row, out_width,
                         memory.values, is_packed});
  }
};

}  // namespace fastinfer
