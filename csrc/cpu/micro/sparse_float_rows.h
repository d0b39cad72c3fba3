// Products of weights that are mostly zero with planes of floats, on vectors of neighbouring
// positions.
#pragma once

#include <utility>

#include "../kernel_table.h"

namespace fastinfer {
namespace {

// sums[r] = what it was + the entries of row r times their planes. Entries count from 0 in every
// row and step: those with an even number are added to the sum that was there, the others to one of
// their own that begins at 0 and is added last. So a result's bits depend on nothing but its row
// and step.
template <class Vec, int V>
void sparse_float_rows_of(const SparseFloatStep& s) {
  constexpr int kWidth = V * Vec::kLanes;
  for (int64_t r = 0; r < s.rows; r++) {
    const int64_t begin = s.starts[r] > 0 ? s.starts[r] : 0;
    const int64_t end = s.starts[r + 1] < s.entries ? s.starts[r + 1] : s.entries;
    float* to = s.sums + r * kWidth;
    const typename Vec::Float start = Vec::setf(s.begins && s.bias != nullptr ? s.bias[r] : 0.0f);
    typename Vec::Float even[V], odd[V];
#pragma GCC unroll 8
    for (int v = 0; v < V; v++) {
      even[v] = s.begins ? start : Vec::loadf(to + v * Vec::kLanes);
      odd[v] = Vec::setf(0.0f);
    }
    int64_t i = begin;
    for (; i + 2 <= end; i += 2) {
      const float* x = s.x + s.places[i] * kWidth;
      const typename Vec::Float w = Vec::setf(s.values[i]);
#pragma GCC unroll 8
      for (int v = 0; v < V; v++) {
        even[v] = Vec::fmaf(w, Vec::loadf(x + v * Vec::kLanes), even[v]);
      }
      const float* y = s.x + s.places[i + 1] * kWidth;
      const typename Vec::Float u = Vec::setf(s.values[i + 1]);
#pragma GCC unroll 8
      for (int v = 0; v < V; v++) {
        odd[v] = Vec::fmaf(u, Vec::loadf(y + v * Vec::kLanes), odd[v]);
      }
    }
    if (i < end) {
      const float* x = s.x + s.places[i] * kWidth;
      const typename Vec::Float w = Vec::setf(s.values[i]);
#pragma GCC unroll 8
      for (int v = 0; v < V; v++) {
        even[v] = Vec::fmaf(w, Vec::loadf(x + v * Vec::kLanes), even[v]);
      }
    }
#pragma GCC unroll 8
    for (int v = 0; v < V; v++) Vec::storef(to + v * Vec::kLanes, Vec::addf(even[v], odd[v]));
  }
}

template <class Vec>
void sparse_float_gather(const SparseFloatGather& g) {
  const int64_t width = int64_t{g.vectors} * Vec::kLanes;
  const int64_t whole = g.count / Vec::kLanes * Vec::kLanes;
  for (int k = 0; k < g.inputs; k++) {
    const float* from = g.planes + g.offsets[k];
    float* to = g.to + k * width;
    for (int64_t i = 0; i < whole; i += Vec::kLanes) Vec::storef(to + i, Vec::loadf(from + i));
    for (int64_t i = whole; i < g.count; i++) to[i] = from[i];
    // What lies there may be slow to multiply.
    for (int64_t i = g.count; i < width; i++) to[i] = 0.0f;
  }
}

template <class Vec, bool kResidual>
void sparse_float_finish_of(const SparseFloatFinish& f) {
  const typename Vec::Float low = Vec::setf(f.lo), high = Vec::setf(f.hi);
  int64_t i = 0;
  // The second operand is what comes out of a comparison with NaN.
  for (; i + Vec::kLanes <= f.n; i += Vec::kLanes) {
    typename Vec::Float v = Vec::loadf(f.from + i);
    if (kResidual) v = Vec::addf(v, Vec::loadf(f.residual + i));
    Vec::storef(f.to + i, Vec::minf(high, Vec::maxf(low, v)));
  }
  for (; i < f.n; i++) {
    float v = f.from[i];
    if (kResidual) v = v + f.residual[i];
    v = v < f.lo ? f.lo : v;
    f.to[i] = v > f.hi ? f.hi : v;
  }
}

template <class Vec>
void sparse_float_finish(const SparseFloatFinish& f) {
  f.residual == nullptr ? sparse_float_finish_of<Vec, false>(f)
                        : sparse_float_finish_of<Vec, true>(f);
}

template <class Vec, int... V>
constexpr SparseFloatKernels sparse_float_kernels(std::integer_sequence<int, V...>) {
  return {Vec::kLanes,
          sizeof...(V),
          {sparse_float_rows_of<Vec, V + 1>...},
          sparse_float_gather<Vec>,
          sparse_float_finish<Vec>};
}

}  // namespace
}  // namespace fastinfer
