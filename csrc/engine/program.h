// A region of a model as data: values and instructions, before shapes are known. Torch-free.
//
// Its text is words between spaces, integers and hexadecimal floating-point numbers, so that it can be
// an argument of an op that tools see as a constant. fastinfer/types/region.py writes it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace fastinfer::engine {

// Order and operands are those of the parameters in fastinfer/types/region.py.
enum class StepKind : int64_t {
  kQuantize,
  kDequantize,
  kConv2d,
  kDepthwiseConv2d,
  kLinear,
  kLookup,
  kMaxPool2d,
  kAvgPool2d,
  kAdaptiveAvgPool2d,
  kAdd,
  kMul,
  kCat,
  kFlatten,
  kSlice,
  kChannelShuffle,
  kUpsample2d,
  kLayerNorm,
  kSoftmax,
  kGlobalAvgPool2d,
  kFloatUpsample2d,
  kFloatUnary,
  kFloatBinary,
  kFloatReduce,
  kFloatGroupNorm,
  kFloatMatmul,
  kFloatAttention,
  kFloatMaxPool2d,
  kPermute,
  kReshape,
  kRoll,
  kPad,
  kStridedSlice,
  kPixelShuffle,
  kJoin,
  kContiguous,
  kLinearDynamic,
  kCount,
  // A plan's own: an NCHW value to NHWC; a slice of what kChannelShuffle would make; a value in another layout; a float
  // value as a dynamic linear layer reads it.
  kInterleave = kCount,
  kShuffledSlice,
  kCopy,
  kQuantizeRows,
};

struct Instruction {
  StepKind kind;
  int64_t out;                 // the value it makes
  std::vector<int64_t> reads;  // the values it reads
  std::vector<int64_t> words;  // its other operands; bits of a double where one is real
};

struct Program {
  int64_t inputs;  // values 0 to inputs - 1
  int64_t values;
  std::vector<int64_t> outputs;  // values
  std::vector<Instruction> steps;
};

// Throws std::invalid_argument when the text is no program.
Program read_program(const std::string& text);

}  // namespace fastinfer::engine
