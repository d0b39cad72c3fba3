// Functions of one and of two numbers, element by element, as fastinfer/types/float_functions.py names them.
#pragma once

#include "../float_kernels.h"
#include "float_rows.h"

namespace fastinfer {
namespace {

// f of every kRowLanes elements; what lies past the end is computed of zeros and dropped.
template <class Vec, class F>
inline __attribute__((always_inline)) void each_pair(const BinaryRow& row, const F& f) {
  using Part = RowPart<Vec>;
  const Part one_x = Part::of(row.x[0]), one_y = Part::of(row.y[0]);
  for (int64_t i = 0; i < row.n; i += kRowLanes) {
    const int64_t left = row.n - i;
    const Part x = row.x_repeats ? one_x : load_part<Vec>(row.x + i, left, 0.0f);
    const Part y = row.y_repeats ? one_y : load_part<Vec>(row.y + i, left, 0.0f);
    store_part(row.out + i, left, x.with(y, f));
  }
}

template <class Vec, class F>
inline __attribute__((always_inline)) void each_element(const UnaryRow& row, const F& f) {
  for (int64_t i = 0; i < row.n; i += kRowLanes) {
    RowPart<Vec> x = load_part<Vec>(row.x + i, row.n - i, 0.0f);
    for (auto& v : x.v) v = f(v);
    store_part(row.out + i, row.n - i, x);
  }
}

// NaN where either is.
template <class Vec>
inline typename Vec::Float maximum(typename Vec::Float a, typename Vec::Float b) {
  return Vec::if_nan(a, a, Vec::maxf(a, b));
}
template <class Vec>
inline typename Vec::Float minimum(typename Vec::Float a, typename Vec::Float b) {
  return Vec::if_nan(a, a, Vec::minf(a, b));
}

template <class Vec>
void binary_row(BinaryFunction function, const BinaryRow& row) {
  using Float = typename Vec::Float;
  if (row.n <= 0) return;
  switch (function) {
    case BinaryFunction::kAdd:
      return each_pair<Vec>(row, Vec::addf);
    case BinaryFunction::kSub:
      return each_pair<Vec>(row, Vec::subf);
    case BinaryFunction::kMul:
      return each_pair<Vec>(row, Vec::mulf);
    case BinaryFunction::kDiv:
      return each_pair<Vec>(row, Vec::divf);
    case BinaryFunction::kMaximum:
      return each_pair<Vec>(row, maximum<Vec>);
    case BinaryFunction::kMinimum:
      return each_pair<Vec>(row, minimum<Vec>);
    default:  // kPrelu
      return each_pair<Vec>(row, [](Float x, Float weight) {
        return Vec::if_above(x, Vec::setf(0.0f), x, Vec::mulf(weight, x));
      });
  }
}

// 1 / (1 + exp(-x)).
template <class Vec>
inline __attribute__((always_inline)) typename Vec::Float sigmoid_lanes(typename Vec::Float x) {
  const auto one = Vec::setf(1.0f);
  return Vec::divf(one, Vec::addf(one, exp_lanes<Vec>(Vec::subf(Vec::setf(0.0f), x))));
}

// x + x^3 p(x^2) for |x| <= 0.625 (Cephes, tanhf), else 1 - 2 / (1 + exp(2 x)).
constexpr float kTanhPolynomial[] = {-5.70498872745e-3f, 2.06390887954e-2f, -5.37397155531e-2f,
                                     1.33314422036e-1f, -3.33332819422e-1f};
constexpr float kTanhSmall = 0.625f;

template <class Vec>
inline __attribute__((always_inline)) typename Vec::Float tanh_lanes(typename Vec::Float x) {
  const auto one = Vec::setf(1.0f);
  const auto power = exp_lanes<Vec>(Vec::addf(x, x));
  const auto far = Vec::subf(one, Vec::divf(Vec::setf(2.0f), Vec::addf(one, power)));
  const auto square = Vec::mulf(x, x);
  auto p = Vec::setf(kTanhPolynomial[0]);
  for (int i = 1; i < 5; i++) p = Vec::addf(Vec::mulf(p, square), Vec::setf(kTanhPolynomial[i]));
  const auto near = Vec::addf(Vec::mulf(Vec::mulf(p, square), x), x);
  return Vec::if_above(Vec::absf(x), Vec::setf(kTanhSmall), far, near);
}

template <class Vec>
void unary_row(UnaryFunction function, const UnaryRow& row) {
  using Float = typename Vec::Float;
  const Float a = Vec::setf(row.a), b = Vec::setf(row.b);
  switch (function) {
    case UnaryFunction::kClamp:  // minf and maxf answer their second operand for NaN
      return each_element<Vec>(row, [&](Float x) { return Vec::minf(b, Vec::maxf(a, x)); });
    case UnaryFunction::kAbs:
      return each_element<Vec>(row, [](Float x) { return Vec::absf(x); });
    case UnaryFunction::kNeg:
      return each_element<Vec>(row, [](Float x) { return Vec::subf(Vec::setf(-0.0f), x); });
    case UnaryFunction::kLeakyRelu:
      return each_element<Vec>(row, [&](Float x) {
        return Vec::if_above(x, Vec::setf(0.0f), x, Vec::mulf(x, a));
      });
    case UnaryFunction::kSquare:
      return each_element<Vec>(row, [](Float x) { return Vec::mulf(x, x); });
    case UnaryFunction::kReciprocal:
      return each_element<Vec>(row, [](Float x) { return Vec::divf(Vec::setf(1.0f), x); });
    case UnaryFunction::kSqrt:
      return each_element<Vec>(row, [](Float x) { return Vec::sqrtf(x); });
    case UnaryFunction::kExp:
      return each_element<Vec>(row, exp_lanes<Vec>);
    case UnaryFunction::kSigmoid:
      return each_element<Vec>(row, sigmoid_lanes<Vec>);
    case UnaryFunction::kTanh:
      return each_element<Vec>(row, tanh_lanes<Vec>);
    default:  // kSilu
      return each_element<Vec>(row,
                               [](Float x) { return Vec::mulf(x, sigmoid_lanes<Vec>(x)); });
  }
}

}  // namespace
}  // namespace fastinfer
