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

// What every CPU has vectors of.
typedef float Four __attribute__((vector_size(16)));

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

  // Halves are added until one number is left.
  __attribute__((always_inline)) float sum() const {
    return halved([](Four a, Four b) { return a + b; });
  }
  // No lane may be NaN.
  __attribute__((always_inline)) float largest() const {
    return halved([](Four a, Four b) { return a > b ? a : b; });
  }

 private:
  template <class F>
  __attribute__((always_inline)) float halved(const F& f) const {
    alignas(64) float each[kRowLanes];
    store(each);
    Four fours[kRowLanes / 4];
    std::memcpy(fours, each, sizeof(fours));
    const Four four = f(f(fours[0], fours[2]), f(fours[1], fours[3]));
    const Four two = f(four, __builtin_shufflevector(four, four, 2, 3, 2, 3));
    return f(two, __builtin_shufflevector(two, two, 1, 1, 1, 1))[0];
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

// kRows rows of more than kParts - 1 and up to kParts RowParts. They stay in registers, and what is a long chain of
// operations for one row is done for all side by side.
template <class Vec, int kParts, int kRows>
inline void softmax_short(const float* x, float* out, int64_t n) {
  using Part = RowPart<Vec>;
  using Wide = Twice<Vec>;
  constexpr float kNone = -__builtin_inff();
  constexpr int kVectors = kRows * kParts * Part::kParts;
  const int64_t last = (kParts - 1) * kRowLanes;
  Part parts[kRows][kParts];
  float scale[kRows];
#pragma GCC unroll 4
  for (int r = 0; r < kRows; r++) {
    auto most = Part::of(kNone);
#pragma GCC unroll 4
    for (int i = 0; i < kParts; i++) {
      const float* const from = x + r * n + i * kRowLanes;
      parts[r][i] = i + 1 < kParts ? Part::load(from) : load_part<Vec>(from, n - last, kNone);
      most = parts[r][i].with(most, Vec::maxf);
    }
    scale[r] = most.largest();
  }
#pragma GCC unroll 4
  for (int r = 0; r < kRows; r++) {
    const auto away = Part::of(scale[r]);
#pragma GCC unroll 4
    for (Part& part : parts[r]) part = part - away;
  }
  // exp(-inf), past the row, is 0.
  typename Vec::Float* const v = parts[0][0].v;
#pragma GCC unroll 8
  for (int i = 0; i + 2 <= kVectors; i += 2) {
    const typename Wide::Float pair = exp_lanes<Wide>({{v[i], v[i + 1]}});
    v[i] = pair.v[0];
    v[i + 1] = pair.v[1];
  }
  if (kVectors % 2 != 0) v[kVectors - 1] = exp_lanes<Vec>(v[kVectors - 1]);
#pragma GCC unroll 4
  for (int r = 0; r < kRows; r++) {
    auto sums = Part::of(0.0f);
#pragma GCC unroll 4
    for (const Part& part : parts[r]) sums = sums + part;
    scale[r] = 1.0f / sums.sum();
  }
#pragma GCC unroll 4
  for (int r = 0; r < kRows; r++) {
    const auto inverse = Part::of(scale[r]);
    float* const to = out + r * n;
#pragma GCC unroll 4
    for (int i = 0; i + 1 < kParts; i++) (parts[r][i] * inverse).store(to + i * kRowLanes);
    store_part(to + last, n - last, parts[r][kParts - 1] * inverse);
  }
}

template <class Vec, int kParts>
void softmax_short_rows(const SoftmaxRows& run) {
  constexpr int kRows = Vec::kLanes == kRowLanes ? 4 : 1;  // as many as registers hold
  const int64_t n = run.n;
  int64_t row = 0;
  for (; row + kRows <= run.rows; row += kRows) {
    softmax_short<Vec, kParts, kRows>(run.x + row * n, run.out + row * n, n);
  }
  for (; row < run.rows; row++) softmax_short<Vec, kParts, 1>(run.x + row * n, run.out + row * n, n);
}

template <class Vec>
void softmax_rows(const SoftmaxRows& run) {
  using Part = RowPart<Vec>;
  using Wide = Twice<Vec>;
  constexpr float kNone = -__builtin_inff();
  const int64_t n = run.n;
  switch ((n + kRowLanes - 1) / kRowLanes) {
    case 1:
      return softmax_short_rows<Vec, 1>(run);
    case 2:
      return softmax_short_rows<Vec, 2>(run);
    case 3:
      return softmax_short_rows<Vec, 3>(run);
    case 4:
      return softmax_short_rows<Vec, 4>(run);
    default:
      break;
  }
  for (int64_t row = 0; row < run.rows; row++) {
    const float* x = run.x + row * n;
    float* out = run.out + row * n;
    auto most = Part::of(kNone);
    // maxf(NaN, most) is most: NaN comes back with the row's own elements.
    for (int64_t i = 0; i < n; i += kRowLanes) {
      most = load_part<Vec>(x + i, n - i, kNone).with(most, Vec::maxf);
    }
    const float largest = most.largest();
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
