// A region of a model as data: values and instructions, before shapes are known. Torch-free.
//
// fastinfer/engine/program.py writes the words this reads.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace fastinfer::engine {

// Order and operands are those of the dataclasses in fastinfer/engine/program.py.
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
  kCount,
};

struct Instruction {
  StepKind kind;
  int64_t out;                 // the value it makes
  std::vector<int64_t> reads;  // the values it reads
  std::vector<int64_t> words;  // its other operands
};

struct Program {
  int64_t id;  // differs between programs
  int64_t inputs;  // values 0 to inputs - 1
  int64_t values;
  std::vector<int64_t> outputs;  // values
  std::vector<Instruction> steps;
};

// Throws std::invalid_argument when the words are no program.
Program read_program(std::span<const int64_t> words);
// The id alone.
int64_t program_id(std::span<const int64_t> words);

}  // namespace fastinfer::engine
