// What one instruction set offers, as a table of functions. Kernels are torch-free and run on one
// thread; the op files split the work.
#pragma once

#include <cstdint>

#include "../epilogue.h"
#include "isa.h"

namespace fastinfer {

// mr rows times one panel of nr channels, over the whole of K.
struct GemmTile {
  const uint8_t* a;        // row r starts at a + r * row_stride, or a packed [k/64][mr][64] chunk
  int64_t row_stride;      // row layout only
  const int8_t* weight;    // the panel's entries, [entry][nr][4]
  const int32_t* offsets;  // byte offset of each entry's 4 activations in a row; pair form only
  int pairs;               // entries taken two at a time (16-bit sums stay in range); pair form
  int singles;             // entries taken alone; in dot form, the number of 4-wide k groups
};

using GemmKernel = void (*)(const GemmTile&, const Epilogue&);

constexpr int kMaxRows = 16;

// Kernels for one panel width. kernel[mr - 1] computes mr rows.
struct GemmFamily {
  int nr;
  int mr_max;
  GemmKernel kernel[kMaxRows];
};

// A run of neighbouring output pixels of one block of channels.
struct DepthwiseRun {
  const uint8_t* const* taps;  // `tap_groups * taps_per_group` pointers to the first pixel's inputs
  int64_t tap_step;            // bytes from one pixel's input to the next one's
  int pixels;
  int tap_groups;
  const void* weight;
};

using DepthwiseKernel = void (*)(const DepthwiseRun&, const Epilogue&);

struct KernelTable {
  Isa isa;
  bool packs_rows;        // GEMM reads [k/64][mr][64] chunks instead of rows
  bool sums_pairs;        // GEMM multiplies in 16 bits: weights are packed in exact pairs
  GemmFamily gemm[2];     // wide panels first; the second may be empty (nr = 0)
  int depthwise_block;    // channels of a depthwise block
  int depthwise_taps;     // taps interleaved in a group
  int depthwise_bytes;    // bytes of one packed depthwise weight
  DepthwiseKernel depthwise;

  void (*quantize)(const float* x, uint8_t* q, int64_t n, float inverse_scale, int32_t zero_point);
  void (*dequantize)(const uint8_t* q, float* x, int64_t n, float scale, int32_t zero_point);
  // Widens [*lo, *hi] to hold x; NaN is skipped.
  void (*min_max)(const float* x, int64_t n, float* lo, float* hi);
  void (*lookup)(const uint8_t* x, uint8_t* out, int64_t n, const uint8_t* table);
};

extern const KernelTable kScalarTable;
extern const KernelTable kAvx2Table;
extern const KernelTable kAvx512Table;
extern const KernelTable kAvx512VnniTable;

const KernelTable& table_of(Isa isa);
inline const KernelTable& current_table() { return table_of(current_isa()); }

}  // namespace fastinfer
