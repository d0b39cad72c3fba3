#include "step.h"

#include <cstring>
#include <stdexcept>

#include "../packed.h"

namespace fastinfer::engine {

Weight weight_at(const uint8_t* data, int64_t bytes) {
  Weight weight{data, bytes};
  if (bytes < kPackedHeaderBytes || std::memcmp(data, kPackedMagic, sizeof(kPackedMagic)) != 0) {
    return weight;
  }
  static_assert(sizeof(PackedHeader) % sizeof(uint64_t) == 0);
  for (size_t i = 0; i < sizeof(PackedHeader); i += sizeof(uint64_t)) {
    uint64_t word;
    std::memcpy(&word, data + i, sizeof(word));
    weight.print = (weight.print ^ word) * 0x9E3779B97F4A7C15u;
    weight.print ^= weight.print >> 29;
  }
  return weight;
}

void expect(bool holds, const char* step, const std::string& text) {
  if (!holds) throw std::invalid_argument(std::string(step) + ": " + text);
}

const float* float_parameter(const char* step, Operands& operands, const Context& context,
                             int64_t n) {
  if (operands.is_absent()) {
    operands.integer();
    return nullptr;
  }
  const Weight& weight = operands.weight(context);
  expect(weight.bytes == n * static_cast<int64_t>(sizeof(float)), step,
         "expected parameters of " + std::to_string(n) + " float32");
  return reinterpret_cast<const float*>(weight.data);
}

const float* float_constant(const char* step, Operands& operands, const Context& context,
                            std::vector<int64_t>& shape) {
  const Weight& weight = operands.weight(context);
  const auto sizes = operands.integers(operands.integer());
  shape.assign(sizes.begin(), sizes.end());
  int64_t bytes = sizeof(float);
  for (const int64_t size : shape) bytes *= size;
  expect(weight.bytes == bytes, step,
         "expected a buffer of " + std::to_string(bytes) + " bytes, got " +
             std::to_string(weight.bytes));
  return reinterpret_cast<const float*>(weight.data);
}

std::string shape_text(const Value& value) {
  std::string text = "[";
  for (size_t i = 0; i < value.shape.size(); i++) {
    text += (i ? ", " : "") + std::to_string(value.shape[i]);
  }
  return text + "]";
}

const Value& image(const char* step, const Instruction& instruction, const Context& context) {
  const Value& x = context.value(instruction.reads[0]);
  expect(x.dtype == Dtype::kUint8 && x.shape.size() == 4, step,
         "expected x uint8 [N, C, H, W], got " + shape_text(x));
  return x;
}

std::span<const int64_t> Operands::integers(int64_t count) {
  const auto size = static_cast<size_t>(count);
  expect(count >= 0 && size <= words_.size(), step_, "program: too few operands");
  const auto taken = words_.first(size);
  words_ = words_.subspan(size);
  return taken;
}

int64_t Operands::integer() { return integers(1)[0]; }

double Operands::real() {
  const int64_t bits = integer();
  double value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

const Weight& Operands::weight(const Context& context) {
  const int64_t index = integer();
  expect(index >= 0 && index < static_cast<int64_t>(context.weights.size()), step_,
         "program: no weight " + std::to_string(index));
  return context.weights[static_cast<size_t>(index)];
}

}  // namespace fastinfer::engine
