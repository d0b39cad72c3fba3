// What one instruction set offers, as a table of functions. Kernels are torch-free and run on one
// thread; the op files split the work.
#pragma once

#include <cstdint>

#include "../epilogue.h"
#include "../packed.h"
#include "column_run.h"
#include "float_kernels.h"
#include "isa.h"
#include "winograd_kernels.h"

namespace fastinfer {

// `tiles` tiles of mr rows each times one panel of nr channels, over the whole of K; with kTiles times
// `panels` of them, and that for each of `lines`.
struct GemmTiles {
  const uint8_t* a;        // row r starts at a + r * row_stride
  int64_t row_stride;      // bytes
  int64_t tiles;
  int64_t step;            // bytes from a tile to the next
  int rows;                // of a tile
  // kTiles: a tile is two halves of `half` rows, its first and its last ones, which may share some; the
  // second begins `second` bytes after the first. 0: it is one.
  int half;
  int64_t second;
  int64_t lines, line_step;  // bytes from the first tile of a line to the next line's
  // Of a panel's weights. kTiles: a tile is multiplied by all panels, which lie so far apart, before the next one.
  int64_t panels, panel_bytes;
  bool streams_weight;  // kTiles only: a tile's rows stay in L1 if weights are kept out of it
  const void* weight;      // the panel's entries: [entry][nr][4] int8, kWords: [k/2][nr][2] int16
  // Byte offsets in a row. kPairs: of each entry's 4 activations; in forms that read runs: of each run.
  const int32_t* offsets;
  // kTiles and kRows: byte offsets of the runs' weights; null: one after the other.
  const int32_t* run_weights;
  int runs;     // in forms that read runs: of `singles` 4-wide k groups that lie together
  int pairs;    // entries taken two at a time (16-bit sums stay in range); kPairs only
  int step_quads;  // kTiles and kSparse: k groups of a step, of which a run has whole ones
  const uint8_t* picks;  // kSparse: how many quads each step has; 16 at most
  // kRows and kSparse: weights to bring near meanwhile, and how many lines of cache for each four k groups,
  // or each step.
  const uint8_t* ahead;
  const uint8_t* ahead_end;
  int ahead_lines;
  bool is_read_once;  // how they are asked for: see read_once.h
  int64_t step_bytes;  // kTiles only: from a step's part of a row to the next one's; 0: side by side
  int singles;  // entries taken alone; other forms: the number of 4-wide k groups (of a run)
};

using GemmKernel = void (*)(const GemmTiles&, const Epilogue&);

constexpr int kMaxRows = 32;

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
  // Up to this height several tiles of uint8 results are taken in turn, which costs less than higher ones:
  // see micro/turns.h. 0: none are.
  int turn_rows = 0;
};

// kSparse: tiles of panels with more weights than so many bytes are taken in turn. They read their activations
// again for every quad, so results have to be few beside these.
constexpr int64_t least_turn_bytes(int vectors) {
  constexpr int kQuads = 32, kVectorBytes = 64;
  return int64_t{kQuads} * (1 + vectors) * kVectorBytes;
}

// How much a quad of kSparse costs differs by CPU (it permutes bytes, one instruction a cycle on some
// that multiply twice), so both are timed once.
struct SparseCost {
  int64_t (*dense)(int64_t rounds);   // 4 k's at a time; both return multiply-adds
  int64_t (*sparse)(int64_t rounds);  // quads of picked k's, by their kernel
};

// Kernels for one form and panel width.
struct GemmFamily {
  GemmForm form;
  int nr;
  GemmCost cost;  // kSparse: `single` is what 4 k's of a vector take without permutes, or a step
  GemmKernels kernels;
  SparseCost sparse = {};  // kSparse only
};

constexpr int kMaxFamilies = 5;

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
  // Output rows at once. 2 for bounded uint8 results of a weight that lies by columns: a group of taps
  // is a column of four rows, which both output rows read, and with a vertical stride of 2 the fifth
  // row is one more group.
  int rows;
  int stride_h;
  int64_t row_bytes;  // from a result to the one below it
};

// Whether depthwise weights lie by columns: in groups of four taps the three rows of a column, and 0.
constexpr bool lies_by_columns(int taps, int64_t kh, int64_t kw) {
  return taps == 4 && kh == 3 && kw <= 3;
}

// One output row of a block of channels with a kernel of 3 x 3 that lies by columns: bounded uint8 results
// without a residual.
struct ColumnsRun {
  const uint8_t* rows[3];  // of the input, a row's first pixel each
  int64_t step;            // bytes from a pixel to the next
  int64_t pixels;          // of the result; with `span` 2 twos of them
  int span;                // pixels of a block, `step` bytes each: 1, or 2 at a stride of 1
  int stride;              // horizontal, times span: 1 or 2
  int64_t pad, width;      // columns of padding before the first pixel, and pixels of the input
  int32_t fill;            // what padding holds
  const void* weight;
  bool may_pass;  // as DepthwiseRun's
};

using ColumnsKernel = void (*)(const ColumnsRun&, const Epilogue&);
using DepthwiseKernel = void (*)(const DepthwiseRun&, const Epilogue&);

// clamp(rint(v * multiplier) + out_zero_point, qmin, qmax), v = x - x_zero_point: from one map to
// another. The product is rounded to float32 and bounded before it becomes an integer; NaN is qmax.
struct Requantize {
  float multiplier;
  int32_t x_zero_point, out_zero_point, qmin, qmax;
};

// Bytes of its own repetition that must follow a y that repeats.
constexpr int64_t kRepeatSlack = 64;

// n > 0 bytes of x, each with its byte of y. `out` may be x, or a y that does not repeat.
struct RowPair {
  const uint8_t* x;
  const uint8_t* y;
  int64_t period;  // y begins again after so many bytes; n where it does not repeat
  uint8_t* out;
  int64_t n;
};

// For each of `pixels` outputs the largest of `count` taps, n bytes each.
struct MaxRun {
  const uint8_t* const* taps;  // ascending: the first output's inputs
  const uint8_t* end;          // all taps' bytes up to here are readable
  int count;
  int64_t n, pixels;
  int64_t step;  // bytes from one output's taps to the next one's
  uint8_t* out;  // pixels * n bytes, which no tap reaches into
};

// The mean over a window, for `outputs` windows of one size and n channels of them.
struct MeanRun {
  const uint8_t* x;    // first channel of the first window's first pixel
  const uint8_t* end;  // bytes up to here are readable
  int64_t rows, pixels;              // of a window; rows * pixels * 255 fits int32
  int64_t row_stride, pixel_stride;  // bytes
  int64_t outputs, step;             // step: bytes from one window to the next
  int64_t n;
  uint8_t* out;
  int64_t out_step;
};

// Outputs of one row of an enlarged image, n channels each: the mean of two pixels of two rows, as
// int8_upsample2d defines it.
struct LerpRun {
  const uint8_t* top;     // rows of x
  const uint8_t* bottom;
  const int64_t* left;    // of each output the two pixels of a row, and the second one's weight
  const int64_t* right;
  const float* right_weight;
  float bottom_weight;
  int64_t pixels, n;
  uint8_t* out;
};

// Rows [first, last) of a channel of an enlarged image, one after the other, as float_upsample2d defines
// them.
struct LerpPlaneRun {
  const float* x;                // the channel in its first pixel
  int64_t row_step, pixel_step;  // floats
  const int64_t* top;            // of each row of the result two rows of x, and the second one's weight
  const int64_t* bottom;
  const float* bottom_weight;
  const int64_t* left;  // of each of `pixels` in a row the same
  const int64_t* right;
  const float* right_weight;
  int64_t pixels, first, last;
  float* mixed;  // room for two rows
  float* out;
};

// Rows of n floats side by side. weight, bias: n floats each, or null.
struct NormRows {
  const float* x;
  float* out;  // may be x
  int64_t rows, n;
  const float* weight;
  const float* bias;
  float eps;
};

struct SoftmaxRows {
  const float* x;
  float* out;  // may be x
  int64_t rows, n;
};

// The means of `channels` channels over an image's pixels, `channels_all` floats apart.
struct ChannelMeans {
  const float* x;  // first channel of the first pixel
  float* out;
  int64_t pixels, channels, channels_all;
};

// At most kSparseFloatInputs inputs times the weights of some outputs that are not 0.
struct SparseFloatStep {
  const float* x;  // [inputs][vectors * lanes]: neighbouring positions of every input
  const float* values;
  const uint8_t* places;  // of each value its input; x may be read as if there were 256
  const int32_t* starts;  // row r has the entries from starts[r] to starts[r + 1]
  int64_t entries;        // of values and places; starts beyond it are taken for it
  int64_t rows;
  bool begins;        // sums are bias or 0 so far, whatever they hold; else they are added to
  const float* bias;  // of every row, or null
  float* sums;        // [rows][vectors * lanes]
};

// Copies of `count` floats of each input's plane, followed by zeros.
struct SparseFloatGather {
  const float* planes;
  const int64_t* offsets;  // of each input, in floats
  int inputs, vectors;
  int64_t count;
  float* to;  // [inputs][vectors * lanes]
};

// to[i] = from[i] + residual[i] in [lo, hi], as torch.clamp: NaN stays.
struct SparseFloatFinish {
  const float* from;
  const float* residual;  // or null
  float* to;              // may be from
  int64_t n;
  float lo, hi;
};

constexpr int kSparseFloatInputs = 128;
constexpr int kMaxSparseVectors = 8;

struct SparseFloatKernels {
  int lanes, vectors;  // of a vector; at most so many at once
  void (*rows[kMaxSparseVectors])(const SparseFloatStep&);  // [vectors - 1]
  void (*gather)(const SparseFloatGather&);
  void (*finish)(const SparseFloatFinish&);
};

struct KernelTable {
  Isa isa;
  GemmFamily gemm[kMaxFamilies];  // ends with the first whose nr is 0
  int lanes;                      // int32 values of a vector
  int depthwise_block;            // channels of a depthwise block
  int depthwise_taps;             // taps interleaved in a group
  int depthwise_bytes;            // bytes of one packed depthwise weight
  DepthwiseKernel depthwise;
  ColumnsKernel depthwise_columns;  // null: there is none
  WinogradKernels winograd[2];      // end with the first whose nr is 0

  void (*quantize)(const float* x, uint8_t* q, int64_t n, float inverse_scale, int32_t zero_point);
  // Planes of n bytes, `apart` bytes from one to the next, into n pixels of three channels.
  void (*interleave3)(const uint8_t* planes, int64_t apart, int64_t n, uint8_t* out);
  void (*columns)(const ColumnLines&, const ColumnRun&);
  void (*dequantize)(const uint8_t* q, float* x, int64_t n, float scale, int32_t zero_point);
  // Widens [*lo, *hi] to hold x; NaN is skipped.
  void (*min_max)(const float* x, int64_t n, float* lo, float* hi);
  void (*lookup)(const uint8_t* x, uint8_t* out, int64_t n, const uint8_t* table);
  void (*widen)(const uint8_t* x, int16_t* out, int64_t n);  // null where no family is kWords

  // y's own part is (y - y_zero_point) * y_multiplier, rounded to float32 before it is added.
  void (*add)(const RowPair&, const Requantize&, float y_multiplier, int32_t y_zero_point);
  // v is (x - x_zero_point) * (y - y_zero_point).
  void (*mul)(const RowPair&, const Requantize&, int32_t y_zero_point);
  void (*requantize)(const uint8_t* x, uint8_t* out, int64_t n, const Requantize&);  // out may be x
  void (*max)(const MaxRun&);
  // v is the window's sum of x - x_zero_point.
  void (*mean)(const MeanRun&, const Requantize&);
  void (*lerp)(const LerpRun&);

  void (*layer_norm)(const NormRows&);
  void (*softmax)(const SoftmaxRows&);
  void (*channel_means)(const ChannelMeans&);
  void (*lerp_plane)(const LerpPlaneRun&);
  FloatKernels floats;

  SparseFloatKernels sparse_float;

  // Multiply-adds in registers by the fastest exact way the table's GEMMs have, and how many they
  // were. Null where no vectors are used.
  int64_t (*peak)(int64_t rounds);

  // What a thread calls after its last GEMM kernel of a step; null: nothing.
  void (*finish)();

  // Null where there are none for panels of this form and width.
  const WinogradKernels* winograd_of(GemmForm form, int nr) const {
    for (const WinogradKernels& kernels : winograd) {
      if (kernels.form == form && kernels.nr == nr) return &kernels;
    }
    return nullptr;
  }

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
extern const KernelTable kAmxTable;

const KernelTable& table_of(Isa isa);
inline const KernelTable& current_table() { return table_of(current_isa()); }

}  // namespace fastinfer
