// The header of every packed weight. fastinfer/types/packed.py is the same struct in Python.
#pragma once

#include <cstdint>
#include <cstring>

namespace fastinfer {

enum class PackedOp : int32_t { kLinear = 0, kConv2d = 1, kDepthwiseConv2d = 2 };

// How a GEMM panel's weights lie; see docs/layouts.md.
enum class GemmForm : int32_t {
  kRows = 0,   // int8 quads, read beside rows of A
  kPairs = 1,  // int8 quads arranged so that 16-bit sums are exact, with an index
  kWords = 2,  // int16, read beside rows of A widened to 16 bits
  kTiles = 3,  // as kRows, each run filled up to whole steps of a tile register
  kFragments = 4,  // int8 rows of K, ordered as a tensor core's fragments hold their columns
  kSparse = 5,  // quads of the products whose weight is not 0, picked from steps of up to 64 activations
  kGroups = 6,  // as kRows, but a panel's channels are of several groups
};

// The layout of weights for CUDA; those of CPUs are an Isa.
constexpr int32_t kLayoutCuda = 6;

// Whether kernels of this form read runs of the image where they lie.
constexpr bool reads_runs(GemmForm form) {
  return form == GemmForm::kRows || form == GemmForm::kTiles || form == GemmForm::kSparse ||
         form == GemmForm::kGroups;
}

// Whether a run is filled up to whole steps of a register.
constexpr bool takes_steps(GemmForm form) {
  return form == GemmForm::kTiles || form == GemmForm::kSparse;
}

// Quads that a register holds of a row, and how it is filled from `quads` of them: `count` steps of
// `quads` each, at most kTileQuads. Equal steps where so few more of them are enough, since a step's time
// does not depend on its quads; else the last one is padded.
constexpr int kTileQuads = 16;

struct TileSteps {
  int count, quads;
};

constexpr TileSteps tile_steps(int quads) {
  const int least = (quads + kTileQuads - 1) / kTileQuads;
  for (int count = least; count <= least + 2; count++) {
    if (quads % count == 0) return {count, quads / count};
  }
  return {least, (quads + least - 1) / least};
}

enum PackedFlag : int32_t {
  kFlagFloatOutput = 1,
  kFlagResidual = 2,
  kFlagTable = 4,
  kFlagDynamic = 8,
  kFlagUnbounded = 16,  // a result may leave int32 before its clamp
  kFlagSmall = 32,      // no result leaves +-2^21 before its clamp, its residual included
  kFlagWinogradSums = 64,  // CPU: no sum of a 3 x 3 convolution leaves what WinogradConv finds whole
  kFlagStrided = 128,      // the convolution's step is known to be more than 1
  kFlagColumns = 256,      // CPU: a window is one run, column by column: (kw, kh, c)
};

constexpr char kPackedMagic[4] = {'F', 'I', 'P', 'K'};
constexpr int32_t kPackedVersion = 3;
constexpr int64_t kPackedHeaderBytes = 256;
// Sections start on cache lines, and end with this much readable slack for whole-vector loads.
constexpr int64_t kSectionAlign = 64;
// In a buffer for CUDA, from here to the header's end every byte is the input's zero point.
constexpr int64_t kPaddingOffset = 192;

struct PackedHeader {
  char magic[4];
  int32_t version;
  int32_t op;
  int32_t layout;  // the Isa that reads it; 0 is canonical
  int32_t n;       // output channels
  int32_t k;       // products summed for one output
  int32_t groups;
  int32_t c_per_group;
  int32_t kh, kw;
  int32_t nr;  // output channels of one panel (of one block, for depthwise)
  int32_t panels_per_group;
  int32_t x_zero_point, out_zero_point;
  int32_t qmin, qmax;
  int32_t flags;
  int32_t form;  // a GemmForm; 0 for depthwise
  float clamp_min, clamp_max;
  // Whose channels stand side by side in the blocks, of depthwise; for CUDA, how many channels keep
  // the same inputs in the image at `index`; of kTiles with a sparse image for calls of few rows,
  // whose header is at `index`, the most of such rows; else 0.
  int32_t pixels;
  // Neighbouring products that lie together in an image; in forms that read runs each fills whole quads.
  int32_t run;
  // Byte offsets from the start of the buffer; 0 where the section is absent.
  int64_t weight, weight_bytes;
  int64_t index, index_bytes;
  int64_t bias;
  int64_t multiplier;
  int64_t residual_multiplier;
  int64_t table;
  int64_t weight_sum;
  int64_t float_bias;
  int64_t total_bytes;

  constexpr bool has(PackedFlag flag) const { return (flags & flag) != 0; }
  // Groups that have panels of their own.
  constexpr int32_t panel_groups() const {
    return static_cast<GemmForm>(form) == GemmForm::kGroups ? 1 : groups;
  }
  // Groups of 4 k's of one run, and of a whole row.
  int32_t run_quads() const {
    const int32_t quads = (run + 3) / 4;
    if (!takes_steps(static_cast<GemmForm>(form))) return quads;
    const TileSteps steps = tile_steps(quads);
    return steps.count * steps.quads;
  }
  int32_t quads() const { return k / run * run_quads(); }
  // Quads of a run that a kernel takes at a time, in forms that take steps.
  int32_t step_quads() const { return tile_steps(run_quads()).quads; }
};
static_assert(sizeof(PackedHeader) == 176 && sizeof(PackedHeader) <= kPaddingOffset);

}  // namespace fastinfer
