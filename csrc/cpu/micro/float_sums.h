// Reductions and group norm, in the order of additions that fastinfer/ops/float_rows.py defines: element i of what
// is summed is added to partial sum i mod kRowLanes, and these are added pairwise.
#pragma once

#include "../float_kernels.h"
#include "float_elements.h"

namespace fastinfer {
namespace {

constexpr float kInfinity = __builtin_inff();

inline bool is_extreme(ReduceFunction function) {
  return function == ReduceFunction::kAmax || function == ReduceFunction::kAmin;
}

// What a sum becomes in the end.
inline float finished(ReduceFunction function, float sum, int64_t n) {
  if (function == ReduceFunction::kMean) return sum / static_cast<float>(n);
  return function == ReduceFunction::kNorm ? std::sqrt(sum) : sum;
}

// The largest or, with `sign` -1, the smallest of n numbers; NaN where one is.
template <class Vec>
inline float extreme_of_row(const float* x, int64_t n, float sign) {
  const auto signs = RowPart<Vec>::of(sign);
  auto most = RowPart<Vec>::of(-kInfinity);
  for (int64_t i = 0; i < n; i += kRowLanes) {
    most = (load_part<Vec>(x + i, n - i, -kInfinity * sign) * signs).with(most, maximum<Vec>);
  }
  float each[kRowLanes], largest = -kInfinity;
  most.store(each);
  for (const float f : each) largest = f > largest || f != f ? f : largest;  // NaN stays
  return largest * sign;
}

template <class Vec>
void reduce_rows(ReduceFunction function, const float* x, float* out, int64_t rows, int64_t n) {
  using Part = RowPart<Vec>;
  for (int64_t row = 0; row < rows; row++, x += n) {
    if (is_extreme(function)) {
      out[row] = extreme_of_row<Vec>(x, n, function == ReduceFunction::kAmax ? 1.0f : -1.0f);
      continue;
    }
    auto sums = Part::of(0.0f);
    for (int64_t i = 0; i < n; i += kRowLanes) {
      const Part part = load_part<Vec>(x + i, n - i, 0.0f);
      sums = sums + (function == ReduceFunction::kNorm ? part * part : part);
    }
    out[row] = finished(function, sums.sum(), n);
  }
}

// Partial sums of kRowLanes columns, and their sum.
template <class Vec>
struct ColumnSums {
  using Part = RowPart<Vec>;
  Part sums[kRowLanes];

  ColumnSums() {
    for (Part& sum : sums) sum = Part::of(0.0f);
  }
  void add(int64_t i, const Part& part) { sums[i % kRowLanes] = sums[i % kRowLanes] + part; }
  Part total() {
    for (int half = kRowLanes / 2; half > 0; half /= 2) {
      for (int i = 0; i < half; i++) sums[i] = sums[i] + sums[i + half];
    }
    return sums[0];
  }
};

template <class Vec>
void reduce_columns(ReduceFunction function, const ReduceColumns& run) {
  using Part = RowPart<Vec>;
  const float sign = function == ReduceFunction::kAmin ? -1.0f : 1.0f;
  const Part signs = Part::of(sign);
  for (int64_t c = 0; c < run.columns; c += kRowLanes) {
    const int64_t left = run.columns - c;
    Part result;
    if (is_extreme(function)) {
      auto most = Part::of(-kInfinity);
      for (int64_t i = 0; i < run.n; i++) {
        const Part part = load_part<Vec>(run.x + i * run.step + c, left, 0.0f) * signs;
        most = part.with(most, maximum<Vec>);
      }
      result = most * signs;
    } else {
      ColumnSums<Vec> sums;
      for (int64_t i = 0; i < run.n; i++) {
        const Part part = load_part<Vec>(run.x + i * run.step + c, left, 0.0f);
        sums.add(i, function == ReduceFunction::kNorm ? part * part : part);
      }
      result = sums.total();
      float each[kRowLanes];
      result.store(each);
      for (float& f : each) f = finished(function, f, run.n);
      result = Part::load(each);
    }
    store_part(run.out + c, left, result);
  }
}

template <class Vec>
void max_taps(const MaxTaps& run) {
  for (int64_t c = 0; c < run.n; c += kRowLanes) {
    const int64_t left = run.n - c;
    auto most = RowPart<Vec>::of(-kInfinity);
    for (int t = 0; t < run.count; t++) {
      most = load_part<Vec>(run.taps[t] + c, left, 0.0f).with(most, maximum<Vec>);
    }
    store_part(run.out + c, left, most);
  }
}

// Of every group the mean of `sums`, its channels' sums, over `count` numbers; to all of its channels.
template <class Vec>
void group_means(const GroupNormRun& run, float* sums) {
  const auto count = static_cast<float>(run.width * run.pixels);
  for (int64_t c = 0; c < run.channels; c += run.width) {
    float sum;
    reduce_rows<Vec>(ReduceFunction::kSum, sums + c, &sum, 1, run.width);
    for (int64_t i = c; i < c + run.width; i++) sums[i] = sum / count;
  }
}

template <class Vec>
void group_norm(const GroupNormRun& run) {
  using Part = RowPart<Vec>;
  float *means = run.scratch, *inverses = means + run.channels;
  reduce_columns<Vec>(ReduceFunction::kSum, {run.x, means, run.pixels, run.step, run.channels});
  group_means<Vec>(run, means);
  for (int64_t c = 0; c < run.channels; c += kRowLanes) {
    const int64_t left = run.channels - c;
    const Part mean = load_part<Vec>(means + c, left, 0.0f);
    ColumnSums<Vec> squares;
    for (int64_t p = 0; p < run.pixels; p++) {
      const Part away = load_part<Vec>(run.x + p * run.step + c, left, 0.0f) - mean;
      squares.add(p, away * away);
    }
    store_part(inverses + c, left, squares.total());
  }
  group_means<Vec>(run, inverses);
  for (int64_t c = 0; c < run.channels; c++) inverses[c] = 1.0f / std::sqrt(inverses[c] + run.eps);
  for (int64_t c = 0; c < run.channels; c += kRowLanes) {
    const int64_t left = run.channels - c;
    const Part mean = load_part<Vec>(means + c, left, 0.0f);
    const Part inverse = load_part<Vec>(inverses + c, left, 0.0f);
    const Part weight = run.weight == nullptr ? mean : load_part<Vec>(run.weight + c, left, 0.0f);
    const Part bias = run.bias == nullptr ? mean : load_part<Vec>(run.bias + c, left, 0.0f);
    for (int64_t p = 0; p < run.pixels; p++) {
      Part y = (load_part<Vec>(run.x + p * run.step + c, left, 0.0f) - mean) * inverse;
      if (run.weight != nullptr) y = y * weight;
      if (run.bias != nullptr) y = y + bias;
      store_part(run.out + p * run.step + c, left, y);
    }
  }
}

}  // namespace
}  // namespace fastinfer
