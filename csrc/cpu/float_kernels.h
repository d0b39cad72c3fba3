// Kernels of float steps between int8 layers. Their order of operations is that of fastinfer/ops/float_*.py.
#pragma once

#include <cstdint>

namespace fastinfer {

// In the order of FLOAT_BINARY in fastinfer/types/float_functions.py.
enum class BinaryFunction : int64_t { kAdd, kSub, kMul, kDiv, kMaximum, kMinimum, kPrelu, kCount };

// In the order of FLOAT_UNARY there; a and b are its numbers.
enum class UnaryFunction : int64_t {
  kClamp,       // to [a, b], as torch.clamp: NaN stays
  kAbs,
  kNeg,
  kLeakyRelu,   // x > 0 ? x : x * a
  kSquare,
  kReciprocal,
  kSqrt,
  kExp,
  kSigmoid,
  kTanh,
  kSilu,
  kGelu,
  kGeluTanh,
  kCount,
};

// In the order of FLOAT_REDUCE there.
enum class ReduceFunction : int64_t { kSum, kMean, kNorm, kAmax, kAmin, kCount };

// out[i] = function(x[i], y[i]); an operand that repeats is one number.
struct BinaryRow {
  const float* x;
  const float* y;
  float* out;  // may be x or y
  int64_t n;
  bool x_repeats, y_repeats;
};

struct UnaryRow {
  const float* x;
  float* out;  // may be x
  int64_t n;
  float a, b;
};

// For each of `columns` neighbouring numbers what `n` of them, `step` floats apart, make.
struct ReduceColumns {
  const float* x;
  float* out;
  int64_t n, step, columns;
};

// Channels [0, channels) of an image in NHWC memory, whole groups of `width` of them, normalized over a group's
// channels and all pixels.
struct GroupNormRun {
  const float* x;  // first channel of the first pixel
  float* out;
  int64_t pixels, step;     // step: floats from a pixel to the next
  int64_t channels, width;
  const float* weight;      // of every channel, or null
  const float* bias;
  float eps;
  float* scratch;           // group_norm_scratch(channels) floats
};
constexpr int64_t group_norm_scratch(int64_t channels) { return 2 * channels; }

// out = a b. Steps are floats from one row, column or element of the sums to the next.
struct MatmulRun {
  const float* a;
  const float* b;
  float* out;
  int64_t rows, k, columns;
  int64_t a_row, a_k, b_k, b_column, out_row;  // columns of the result lie side by side
  // Columns that are multiplied by all rows before the next ones; a multiple of kMatmulPanel, or all of them.
  int64_t group;
  float* scratch;  // matmul_scratch(k, columns, group) floats
  bool is_packed;  // scratch has b already, of a run with the same columns in one group
};
constexpr int64_t kMatmulPanel = 64;  // columns at once
constexpr int64_t whole_panels(int64_t columns) {
  return (columns + kMatmulPanel - 1) / kMatmulPanel * kMatmulPanel;
}
// A group that a core's cache keeps.
constexpr int64_t matmul_group(int64_t k) {
  constexpr int64_t kFloats = 128 << 10;
  const int64_t panels = k == 0 ? 1 : kFloats / (k * kMatmulPanel);
  return (panels > 0 ? panels : 1) * kMatmulPanel;
}
constexpr int64_t matmul_scratch(int64_t k, int64_t columns, int64_t group) {
  return k * whole_panels(columns < group ? columns : group);
}

// For each of n channels the largest of `count` pixels'.
struct MaxTaps {
  const float* const* taps;
  int count;
  float* out;
  int64_t n;
};

struct FloatKernels {
  void (*binary)(BinaryFunction, const BinaryRow&);
  void (*unary)(UnaryFunction, const UnaryRow&);
  void (*reduce_rows)(ReduceFunction, const float* x, float* out, int64_t rows, int64_t n);
  void (*reduce_columns)(ReduceFunction, const ReduceColumns&);
  void (*group_norm)(const GroupNormRun&);
  void (*matmul)(const MatmulRun&);
  void (*max)(const MaxTaps&);
};

}  // namespace fastinfer
