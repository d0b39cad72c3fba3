// Images of another height and width, split over threads. Torch-free: the op and the engine call it
// alike.
#pragma once

#include <cstdint>
#include <vector>

#include "kernel_table.h"
#include "work.h"

namespace fastinfer {

// Where one axis of the result comes from: for each of its pixels a source pixel, or a mean of two.
struct UpsampleAxis {
  int64_t size;  // pixels of x
  std::vector<int64_t> first, second;
  std::vector<float> weight;  // of the second; the first one's is 1 - weight

  // As torch finds them; factor is 0 where the sizes say the scale. size and out are 1 or more.
  static UpsampleAxis nearest(int64_t size, int64_t out, double factor);
  static UpsampleAxis linear(int64_t size, int64_t out, double factor, bool align_corners);

  int64_t out() const { return static_cast<int64_t>(first.size()); }
  bool is_linear() const { return !second.empty(); }
};

// Both axes linear or both nearest. x: [batch, h.size, w.size, channels], out: [batch, h.out(), w.out(),
// channels], dense.
struct Upsample {
  using Element = uint8_t;
  const KernelTable& table;
  const UpsampleAxis& h;
  const UpsampleAxis& w;
  int64_t batch, channels;
  const uint8_t* x;
  uint8_t* out;

  Work work() const;
  void run_part(int thread, int threads) const;

 private:
  void nearest_row(int64_t image, int64_t row) const;
  void linear_row(int64_t image, int64_t row) const;
};

// The same of float32, bilinear; out: [batch, channels, h.out(), w.out()].
struct FloatUpsample {
  using Element = float;
  const KernelTable& table;
  const UpsampleAxis& h;
  const UpsampleAxis& w;
  int64_t batch, channels;
  const float* x;
  float* out;

  Work work() const;
  void run_part(int thread, int threads) const;
};

}  // namespace fastinfer
