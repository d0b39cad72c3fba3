// What one instruction set offers, as a table of functions. Kernels are torch-free and run on one
// thread; the op files split the work.
#pragma once

#include <cstdint>

#include "../epilogue.h"
#include "../packed.h"
#include "isa.h"

namespace fastinfer {

// `tiles` tiles of mr rows each times one panel of nr channels, over the whole of K.
struct GemmTiles {
  const uint8_t* a;        // row r starts at a + r * row_stride
  int64_t row_stride;      // bytes
  int64_t tiles;           // a tile starts mr * row_stride bytes after the one before
  const void* weight;      // the panel's entries: [entry][nr][4] int8, kWords: [k/2][nr][2] int16
  const int32_t* offsets;  // byte offset of each entry's 4 activations in a row; kPairs only
  int pairs;               // entries taken two at a time (16-bit sums stay in range); kPairs only
  int singles;             // entries taken alone; other forms: the number of 4-wide k groups
};

using GemmKernel = void (*)(const GemmTiles&, const Epilogue&);

constexpr int kMaxRows = 16;

// Estimated cycles of one vector of results, by which a weight's form and width are chosen.
struct GemmCost {
  float single;   // 4 k's
  float pair;     // 8 k's in a pair of kPairs
  float result;   // the epilogue
  float widen;    // one k of a row, once for all panels
};

// Kernels for tiles of 1 to mr_max rows; kernel[mr - 1] computes tiles of mr rows.
struct GemmKernels {
  int mr_max;
  GemmKernel kernel[kMaxRows];
};

// Kernels for one form and panel width.
struct GemmFamily {
  GemmForm form;
  int nr;
  GemmCost cost;
  GemmKernels kernels;
};

constexpr int kMaxFamilies = 3;

// A run of neighbouring output pixels (or of groups of them: see PackedHeader::pixels) of one block of
// channels.
struct DepthwiseRun {
  const uint8_t* const* taps;  // `tap_groups * taps_per_group` pointers to the first pixel's inputs
  int64_t tap_step;            // bytes from one pixel's input to the next one's
  int pixels;
  int tap_groups;
  const void* weight;
  // A block with missing channels may write uint8 results over the next pixel's first channels, in
  // all pixels but the last.
  bool may_pass;
};

using DepthwiseKernel = void (*)(const DepthwiseRun&, const Epilogue&);

struct KernelTable {
  Isa isa;
  GemmFamily gemm[kMaxFamilies];  // ends with the first whose nr is 0
  int lanes;                      // int32 values of a vector
  int depthwise_block;            // channels of a depthwise block
  int depthwise_taps;             // taps interleaved in a group
  int depthwise_bytes;            // bytes of one packed depthwise weight
  DepthwiseKernel depthwise;

  void (*quantize)(const float* x, uint8_t* q, int64_t n, float inverse_scale, int32_t zero_point);
  void (*dequantize)(const uint8_t* q, float* x, int64_t n, float scale, int32_t zero_point);
  // Widens [*lo, *hi] to hold x; NaN is skipped.
  void (*min_max)(const float* x, int64_t n, float* lo, float* hi);
  void (*lookup)(const uint8_t* x, uint8_t* out, int64_t n, const uint8_t* table);
  void (*widen)(const uint8_t* x, int16_t* out, int64_t n);  // null where no family is kWords

  // The family a weight of this form and panel width was packed for.
  const GemmFamily& family(GemmForm form, int nr) const {
    int i = 0;
    while (i + 1 < kMaxFamilies && (gemm[i].form != form || gemm[i].nr != nr)) i++;
    return gemm[i];
  }
};

extern const KernelTable kScalarTable;
extern const KernelTable kAvx2Table;
extern const KernelTable kAvx512Table;
extern const KernelTable kAvx512VnniTable;

const KernelTable& table_of(Isa isa);
inline const KernelTable& current_table() { return table_of(current_isa()); }

}  // namespace fastinfer
