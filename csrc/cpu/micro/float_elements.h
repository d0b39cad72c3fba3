// Functions of one and of two numbers, element by element, as fastinfer/types/float_functions.py names them.
#pragma once

#include "../float_kernels.h"
#include "float_rows.h"
#include "twice.h"

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

// The same for long functions: f(Vec{}, x) for a Vec of any width.
template <class Vec, class F>
inline __attribute__((always_inline)) void each_pair_of_vectors(const UnaryRow& row, const F& f) {
  using Wide = Twice<Vec>;
  int64_t i = 0;
  for (; i + Wide::kLanes <= row.n; i += Wide::kLanes) {
    Wide::storef(row.out + i, f(Wide{}, Wide::loadf(row.x + i)));
  }
  each_element<Vec>({row.x + i, row.out + i, row.n - i, 0, 0},
                    [&](typename Vec::Float x) { return f(Vec{}, x); });
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

// log(erfc(z) exp(z^2) / (2 t)), t = 1 / (1 + z / 2), for z >= 0: a fit by least squares, within 2e-7.
constexpr float kErfcPolynomial[] = {7.97697320737e-2f, -5.62165478390e-1f, 1.49263448461f,
                                     -1.80554965520f,   8.71190759649e-1f,  -2.45071234220e-1f,
                                     4.41755313565e-1f, 9.92605553638e-1f,  -1.95831685713f};
constexpr float kRootHalf = 0.70710678118654752f;

// x times the normal distribution's share below x: t exp(p(t) - z^2) or 1 less that, z = |x| / sqrt(2).
template <class Vec>
inline __attribute__((always_inline)) typename Vec::Float gelu_lanes(typename Vec::Float x) {
  const auto one = Vec::setf(1.0f);
  const auto z = Vec::mulf(Vec::absf(x), Vec::setf(kRootHalf));
  const auto t = Vec::divf(one, Vec::addf(one, Vec::mulf(z, Vec::setf(0.5f))));
  auto p = Vec::setf(kErfcPolynomial[0]);
  for (int i = 1; i < 9; i++) p = Vec::addf(Vec::mulf(p, t), Vec::setf(kErfcPolynomial[i]));
  const auto tail = Vec::mulf(t, exp_lanes<Vec>(Vec::subf(p, Vec::mulf(z, z))));
  const auto share = Vec::if_above(x, Vec::setf(0.0f), Vec::subf(one, tail), tail);
  return Vec::mulf(x, share);
}

// x sigmoid(sqrt(8 / pi) (x + 0.044715 x^3)), which is x (1 + tanh) / 2 of half of that.
constexpr float kGeluCube = 0.044715f, kGeluScale = 1.59576912160573071f;
template <class Vec>
inline __attribute__((always_inline)) typename Vec::Float gelu_tanh_lanes(typename Vec::Float x) {
  const auto cube = Vec::mulf(Vec::mulf(Vec::mulf(x, x), x), Vec::setf(kGeluCube));
  const auto inner = Vec::mulf(Vec::addf(x, cube), Vec::setf(kGeluScale));
  return Vec::mulf(x, sigmoid_lanes<Vec>(inner));
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
      return each_pair_of_vectors<Vec>(
          row, []<class V>(V, typename V::Float x) { return exp_lanes<V>(x); });
    case UnaryFunction::kSigmoid:
      return each_pair_of_vectors<Vec>(
          row, []<class V>(V, typename V::Float x) { return sigmoid_lanes<V>(x); });
    case UnaryFunction::kTanh:
      return each_pair_of_vectors<Vec>(
          row, []<class V>(V, typename V::Float x) { return tanh_lanes<V>(x); });
    case UnaryFunction::kSilu:
      return each_pair_of_vectors<Vec>(
          row, []<class V>(V, typename V::Float x) { return V::mulf(x, sigmoid_lanes<V>(x)); });
    case UnaryFunction::kGelu:
      return each_pair_of_vectors<Vec>(
          row, []<class V>(V, typename V::Float x) { return gelu_lanes<V>(x); });
    default:  // kGeluTanh
      return each_pair_of_vectors<Vec>(
          row, []<class V>(V, typename V::Float x) { return gelu_tanh_lanes<V>(x); });
  }
}

}  // namespace
}  // namespace fastinfer
