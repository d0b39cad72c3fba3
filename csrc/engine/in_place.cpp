#include "in_place.h"

#include "../cpu/cache_lines.h"

namespace fastinfer::engine {
namespace {

// Of a pixel or a row.
int64_t row_bytes(const Value& value) {
  const int64_t n = value.shape.size() == 4 ? value.shape[1] : value.shape.back();
  return value.dtype == Dtype::kFloat ? n * int64_t{sizeof(float)} : n;
}

// The operands of which a step reads an element for the last time before it writes that of the result. Kernels
// store the end of a row under a mask, over which a CPU does not forward what it stored to the loads of the
// next row's residuals (Zen 5, 24 channels: 1.25 to 1.5 times as long): so rows end where lines of cache do.
std::vector<size_t> read_by_element(const Instruction& step, const Value& result) {
  switch (step.kind) {
    case StepKind::kConv2d:
    case StepKind::kLinear:
      if (step.reads.size() == 1 || row_bytes(result) % kLineBytes != 0) return {};
      return {1};
    case StepKind::kAdd:
    case StepKind::kMul:
      return {0, 1};
    case StepKind::kFloatBinary:
      return step.reads.size() == 1 ? std::vector<size_t>{0} : std::vector<size_t>{0, 1};
    case StepKind::kLookup:
    case StepKind::kFloatUnary:
      return {0};
    default:
      return {};
  }
}

class OperandMemory {
 public:
  OperandMemory(std::vector<Place>& places, const std::vector<Instruction>& steps,
                const std::vector<Value>& values, int64_t inputs,
                const std::vector<int64_t>& outputs)
      : places_(places), steps_(steps), values_(values), is_callers_(values.size()) {
    for (int64_t value = 0; value < inputs; value++) is_callers_[index(value)] = true;
    for (const int64_t value : outputs) is_callers_[index(value)] = true;
  }

  void reuse() {
    for (size_t at = 0; at < steps_.size(); at++) {
      const Instruction& step = steps_[at];
      for (const size_t operand : read_by_element(step, values_[index(step.out)])) {
        if (!may_lie_in(at, operand)) continue;
        move(step.out, owner(step.reads[operand]));
        break;
      }
    }
  }

 private:
  static size_t index(int64_t value) { return static_cast<size_t>(value); }
  int64_t owner(int64_t value) const { return places_[index(value)].owner; }

  bool may_lie_in(size_t at, size_t operand) const {
    const Instruction& step = steps_[at];
    const int64_t memory = owner(step.reads[operand]);
    const Value& from = values_[index(memory)];
    return owner(step.out) == step.out && !is_callers_[index(step.out)] &&
           !is_callers_[index(memory)] && from == values_[index(step.out)] &&
           from == values_[index(step.reads[operand])] && is_last_reading(at, operand, memory);
  }

  // Whether nothing else is read from that memory, by this step or later, and nothing is made there.
  bool is_last_reading(size_t at, size_t operand, int64_t memory) const {
    for (size_t i = at; i < steps_.size(); i++) {
      if (owner(steps_[i].out) == memory) return false;
      for (size_t r = 0; r < steps_[i].reads.size(); r++) {
        if (owner(steps_[i].reads[r]) != memory) continue;
        // Both operands of an addition may be the same value: its elements are read together.
        const bool is_same = i == at && steps_[at].reads[r] == steps_[at].reads[operand] &&
                             is_pair(steps_[at]);
        if (!is_same && !(i == at && r == operand)) return false;
      }
    }
    return true;
  }

  static bool is_pair(const Instruction& step) {
    return step.kind == StepKind::kAdd || step.kind == StepKind::kMul ||
           step.kind == StepKind::kFloatBinary;
  }

  // Views of it move with a value.
  void move(int64_t value, int64_t memory) {
    for (Place& place : places_) {
      if (place.owner == value) place.owner = memory;
    }
  }

  std::vector<Place>& places_;
  const std::vector<Instruction>& steps_;
  const std::vector<Value>& values_;
  std::vector<bool> is_callers_;
};

}  // namespace

void reuse_operands(std::vector<Place>& places, const std::vector<Instruction>& steps,
                    const std::vector<Value>& values, int64_t inputs,
                    const std::vector<int64_t>& outputs) {
  OperandMemory(places, steps, values, inputs, outputs).reuse();
}

}  // namespace fastinfer::engine
