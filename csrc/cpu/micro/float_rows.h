// Layer norm and softmax of rows, in the order of operations that fastinfer/ops/float_rows.py defines.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>

#include "../kernel_table.h"
#include "twice.h"

namespace fastinfer {
namespace {

constexpr float kLog2E = 1.44269504088896341f, kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
constexpr float kExpLeast = -104.0f, kExpMost = 89.0f;
constexpr float kExpPolynomial[] = {1.9875691500e-4f, 1.3981999507e-3f, 8.3334519073e-3f,
                                    4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f};
constexpr int kRowLanes = 16;

// kRowLanes floats in as many vectors as they take.
template <class Vec>
struct RowPart {
  static constexpr int kParts = kRowLanes / Vec::kLanes;
  typename Vec::Float v[kParts];

  static RowPart of(float value) {
    RowPart part;
    for (auto& v : part.v) v = Vec::setf(value);
    return part;
  }
  static RowPart load(const float* x) {
    RowPart part;
    for (int j = 0; j < kParts; j++) part.v[j] = Vec::loadf(x + j * Vec::kLanes);
    return part;
  }
  void store(float* to) const {
    for (int j = 0; j < kParts; j++) Vec::storef(to + j * Vec::kLanes, v[j]);
  }
  template <class F>
  __attribute__((always_inline)) RowPart with(const RowPart& other, const F& f) const {
    RowPart part;
    for (int j = 0; j < kParts; j++) part.v[j] = f(v[j], other.v[j]);
    return part;
  }
  RowPart operator+(const RowPart& other) const { return with(other, Vec::addf); }
  RowPart operator-(const RowPart& other) const { return with(other, Vec::subf); }
  RowPart operator*(const RowPart& other) const { return with(other, Vec::mulf); }

  float sum() const {
    float sums[kRowLanes];
    store(sums);
    for (int half = kRowLanes / 2; half > 0; half /= 2) {
      for (int j = 0; j < half; j++) sums[j] = sums[j] + sums[j + half];
    }
    return sums[0];
  }
};

// The part of a row that begins at x, with `pad` for what is past its last element.
template <class Vec>
inline RowPart<Vec> load_part(const float* x, int64_t left, float pad) {
  if (left >= kRowLanes) return RowPart<Vec>::load(x);
  if constexpr (requires { Vec::load_somef(x, 0, Vec::setf(pad)); }) {
    return {{Vec::load_somef(x, static_cast<int>(left), Vec::setf(pad))}};
  }
  float part[kRowLanes];
  for (float& f : part) f = pad;
  std::memcpy(part, x, static_cast<size_t>(left) * sizeof(float));
  return RowPart<Vec>::load(part);
}

template <class Vec>
inline void store_part(float* out, int64_t left, const RowPart<Vec>& part) {
  if (left >= kRowLanes) return part.store(out);
  if constexpr (requires { Vec::store_somef(out, part.v[0], 0); }) {
    return Vec::store_somef(out, part.v[0], static_cast<int>(left));
  }
  float whole[kRowLanes];
  part.store(whole);
  std::memcpy(out, whole, static_cast<size_t>(left) * sizeof(float));
}

template <class Vec>
void layer_norm_rows(const NormRows& run) {
  using Part = RowPart<Vec>;
  const int64_t n = run.n;
  const auto count = static_cast<float>(n);
  for (int64_t row = 0; row < run.rows; row++) {
    const float* x = run.x + row * n;
    float* out = run.out + row * n;
    auto sums = Part::of(0.0f);
    for (int64_t i = 0; i < n; i += kRowLanes) sums = sums + load_part<Vec>(x + i, n - i, 0.0f);
    const float mean = sums.sum() / count;
    const auto means = Part::of(mean);
    auto squares = Part::of(0.0f);
    for (int64_t i = 0; i < n; i += kRowLanes) {
      const Part away = load_part<Vec>(x + i, n - i, mean) - means;  // zero past the row
      squares = squares + away * away;
    }
    const auto inverse = Part::of(1.0f / std::sqrt(squares.sum() / count + run.eps));
    for (int64_t i = 0; i < n; i += kRowLanes) {
      Part y = (load_part<Vec>(x + i, n - i, 0.0f) - means) * inverse;
      if (run.weight != nullptr) y = y * load_part<Vec>(run.weight + i, n - i, 0.0f);
      if (run.bias != nullptr) y = y + load_part<Vec>(run.bias + i, n - i, 0.0f);
      store_part(out + i, n - i, y);
    }
  }
}

// exp(x). NaN stays NaN: it is the second operand of minf and maxf.
template <class Vec>
inline __attribute__((always_inline)) typename Vec::Float exp_lanes(typename Vec::Float x) {
  x = Vec::minf(Vec::setf(kExpMost), Vec::maxf(Vec::setf(kExpLeast), x));
  const auto n = Vec::round(Vec::mulf(x, Vec::setf(kLog2E)));
  const auto f = Vec::to_float(n);
  const auto r = Vec::subf(Vec::subf(x, Vec::mulf(f, Vec::setf(kLn2High))),
                           Vec::mulf(f, Vec::setf(kLn2Low)));
  auto p = Vec::setf(kExpPolynomial[0]);
  for (int i = 1; i < 6; i++) p = Vec::addf(Vec::mulf(p, r), Vec::setf(kExpPolynomial[i]));
  auto y = Vec::addf(Vec::addf(Vec::mulf(Vec::mulf(p, r), r), r), Vec::setf(1.0f));
  // In two steps, so that results below the least normal number round once and 2^128 overflows.
  const auto half = Vec::half32(n);
  y = Vec::mulf(y, Vec::power_of_two(half));
  return Vec::mulf(y, Vec::power_of_two(Vec::sub32(n, half)));
}

template <class Vec>
void softmax_rows(const SoftmaxRows& run) {
  using Part = RowPart<Vec>;
  using Wide = Twice<Vec>;
  constexpr float kNone = -__builtin_inff();
  const int64_t n = run.n;
  for (int64_t row = 0; row < run.rows; row++) {
    const float* x = run.x + row * n;
    float* out = run.out + row * n;
    auto most = Part::of(kNone);
    // maxf(NaN, most) is most: NaN comes back with the row's own elements.
    for (int64_t i = 0; i < n; i += kRowLanes) {
      most = load_part<Vec>(x + i, n - i, kNone).with(most, Vec::maxf);
    }
    float each[kRowLanes], largest = kNone;
    most.store(each);
    for (const float f : each) largest = f > largest ? f : largest;
    const auto away = Part::of(largest);
    auto sums = Part::of(0.0f);
    int64_t done = 0;
    const auto wide_away = Wide::setf(largest);
    for (; done + Wide::kLanes <= n; done += Wide::kLanes) {
      Wide::storef(out + done, exp_lanes<Wide>(Wide::subf(Wide::loadf(x + done), wide_away)));
    }
    for (int64_t i = done; i < n; i += kRowLanes) {
      Part power = load_part<Vec>(x + i, n - i, kNone) - away;
      for (auto& v : power.v) v = exp_lanes<Vec>(v);
      store_part(out + i, n - i, power);
    }
    for (int64_t i = 0; i < n; i += kRowLanes) {
      sums = sums + load_part<Vec>(out + i, n - i, 0.0f);
    }
    const auto inverse = Part::of(1.0f / sums.sum());
    for (int64_t i = 0; i < n; i += kRowLanes) {
      store_part(out + i, n - i, load_part<Vec>(out + i, n - i, 0.0f) * inverse);
    }
  }
}

}  // namespace
}  // namespace fastinfer
