// Loops over the elements of a result and the elements of operands that belong to them. Torch-free.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <numeric>
#include <vector>

#include "value.h"

namespace fastinfer::engine {

using Sizes = std::vector<int64_t>;

// Elements from one index of each dimension to the next.
inline Sizes row_major_strides(const Sizes& shape) {
  Sizes strides(shape.size());
  int64_t step = 1;
  for (size_t i = shape.size(); i-- > 0; step *= shape[i]) strides[i] = step;
  return strides;
}
inline Sizes strides_of(const Value& value) {
  if (!value.strides.empty()) return value.strides;
  if (value.shape.size() != 4 || value.is_planar) return row_major_strides(value.shape);
  const Sizes& s = value.shape;
  return {s[1] * s[2] * s[3], 1, s[1] * s[3], s[1]};
}

// Of a result and kOperands operands. Its loops follow the result's memory, so that it is written in order.
template <size_t kOperands>
class Nest {
 public:
  static constexpr size_t kAll = kOperands + 1;
  using Steps = std::array<int64_t, kAll>;  // or offsets, in elements: the result's first

  // strides: of the result, then of each operand; 0 where one repeats.
  Nest(const Sizes& sizes, const std::array<Sizes, kAll>& strides) {
    std::vector<size_t> order(sizes.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return strides[0][a] > strides[0][b]; });
    for (const size_t i : order) {
      elements_ *= sizes[i];
      if (sizes[i] == 1) continue;
      Steps steps;
      for (size_t j = 0; j < kAll; j++) steps[j] = strides[j][i];
      add(sizes[i], steps);
    }
    if (loops_.empty()) loops_.push_back({1, Steps{}});
  }

  int64_t elements() const { return elements_; }
  // Of the innermost loop.
  const Steps& steps() const { return loops_.back().steps; }

  // f(offsets, n) for runs of n neighbouring steps of the innermost loop; all elements [begin, end).
  template <class F>
  void each_run(int64_t begin, int64_t end, const F& f) const {
    const int64_t inner = loops_.back().size;
    while (begin < end) {
      const int64_t at = begin % inner, n = std::min(inner - at, end - begin);
      Steps offsets{};
      int64_t left = begin;
      for (size_t i = loops_.size(); i-- > 0; left /= loops_[i].size) {
        const int64_t index = left % loops_[i].size;
        for (size_t j = 0; j < kAll; j++) offsets[j] += index * loops_[i].steps[j];
      }
      f(offsets, n);
      begin += n;
    }
  }

  // Whether the innermost loop jumps through the operand and the one round it does not: a transposition.
  bool is_transposed() const {
    return loops_.size() > 1 && loops_.back().steps[1] > 1 && row_steps()[1] == 1;
  }
  // Of the loop round the innermost one.
  const Steps& row_steps() const { return loops_[loops_.size() - 2].steps; }
  int64_t row() const { return loops_.back().size; }
  // Blocks of kBlockRows rows of the innermost loop.
  static constexpr int64_t kBlockRows = 16;
  int64_t blocks() const { return elements_ == 0 ? 0 : outer() * blocks_of_rows(); }
  // f(offsets, rows) for blocks [begin, end).
  template <class F>
  void each_block(int64_t begin, int64_t end, const F& f) const {
    const int64_t rows = loops_[loops_.size() - 2].size;
    for (int64_t block = begin; block < end; block++) {
      const int64_t first = block % blocks_of_rows() * kBlockRows;
      Steps offsets{};
      int64_t left = block / blocks_of_rows();
      for (size_t i = loops_.size() - 2; i-- > 0; left /= loops_[i].size) {
        for (size_t j = 0; j < kAll; j++) offsets[j] += left % loops_[i].size * loops_[i].steps[j];
      }
      for (size_t j = 0; j < kAll; j++) offsets[j] += first * row_steps()[j];
      f(offsets, std::min(kBlockRows, rows - first));
    }
  }

 private:
  int64_t blocks_of_rows() const {
    return (loops_[loops_.size() - 2].size + kBlockRows - 1) / kBlockRows;
  }
  int64_t outer() const { return elements_ / (loops_.back().size * loops_[loops_.size() - 2].size); }

  struct Loop {
    int64_t size;
    Steps steps;
  };

  // Inside the loops so far; one loop with the last where all operands allow it.
  void add(int64_t size, const Steps& steps) {
    if (!loops_.empty()) {
      Loop& outer = loops_.back();
      bool is_one = true;
      for (size_t j = 0; j < kAll; j++) is_one &= outer.steps[j] == size * steps[j];
      if (is_one) {
        outer = {outer.size * size, steps};
        return;
      }
    }
    loops_.push_back({size, steps});
  }

  std::vector<Loop> loops_;
  int64_t elements_ = 1;
};

}  // namespace fastinfer::engine
