// Weighted means of four bytes: two rows of an image, two pixels of each.
#pragma once

#include "pointwise_rows.h"

namespace fastinfer {
namespace {

template <class Vec>
void lerp_rows(const LerpRun& run) {
  const Rounder<Vec> rounder({1.0f, 0, 0, 0, 255});
  const auto zero = magic_zero<Vec>(0);
  const auto h0 = Vec::setf(1.0f - run.bottom_weight), h1 = Vec::setf(run.bottom_weight);
  const int64_t n = run.n;
  uint8_t* out = run.out;
  for (int64_t pixel = 0; pixel < run.pixels; pixel++, out += n) {
    const int64_t left = run.left[pixel] * n, right = run.right[pixel] * n;
    const auto w0 = Vec::setf(1.0f - run.right_weight[pixel]);
    const auto w1 = Vec::setf(run.right_weight[pixel]);
    const auto mean = [&](int64_t at, const auto& load) __attribute__((always_inline)) {
      typename Vec::Float a[4], b[4], c[4], d[4];
      widen_bytes<Vec>(load(run.top + left + at), zero, a);
      widen_bytes<Vec>(load(run.top + right + at), zero, b);
      widen_bytes<Vec>(load(run.bottom + left + at), zero, c);
      widen_bytes<Vec>(load(run.bottom + right + at), zero, d);
#pragma GCC unroll 4
      for (int j = 0; j < 4; j++) {
        const auto top = Vec::addf(Vec::mulf(a[j], w0), Vec::mulf(b[j], w1));
        const auto bottom = Vec::addf(Vec::mulf(c[j], w0), Vec::mulf(d[j], w1));
        a[j] = Vec::addf(Vec::mulf(top, h0), Vec::mulf(bottom, h1));
      }
      return rounder.bytes(a);
    };
    int64_t i = 0;
    for (; i + Vec::kBytes <= n; i += Vec::kBytes) {
      Vec::store(out + i, mean(i, [](const uint8_t* p) { return Vec::load(p); }));
    }
    if (const int64_t rest = n - i; rest > 0) {
      Vec::store_some(
          out + i, mean(i, [rest](const uint8_t* p) { return Vec::load_some(p, rest); }), rest);
    }
  }
}

}  // namespace
}  // namespace fastinfer
