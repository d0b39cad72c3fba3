// float_unary, float_binary: every element on its own.
#include "../strided.h"

namespace fastinfer::engine {
namespace {

// Operations of float steps cost as a few moves of theirs.
constexpr int64_t kUnaryWork = 4 * kMoveWork;

class UnaryStep : public Step {
 public:
  UnaryStep(const Instruction& instruction, const Context& context, int64_t count,
            UnaryFunction function, float a, float b)
      : table_(context.table),
        from_(static_cast<size_t>(instruction.reads[0])),
        to_(static_cast<size_t>(instruction.out)),
        count_(count),
        function_(function),
        a_(a),
        b_(b) {}

  Work work() const override { return {count_ * kUnaryWork, count_}; }
  void run(const Frame& frame, int thread, int threads) const override {
    const auto [begin, end] = share_of(count_, kUnit, thread, threads);
    if (begin == end) return;
    table_.floats.unary(function_, {reinterpret_cast<const float*>(frame[from_]) + begin,
                                    reinterpret_cast<float*>(frame[to_]) + begin, end - begin, a_,
                                    b_});
  }

 private:
  static constexpr int64_t kUnit = 16;
  const KernelTable& table_;
  const size_t from_, to_;
  const int64_t count_;
  const UnaryFunction function_;
  const float a_, b_;
};

// What an operand of a binary step is: a value, a constant of the program, or a number.
struct Operand {
  const float* constant;  // null: a value
  size_t value;
  Sizes shape, strides;
  float number;
  bool is_number;

  const float* at(const Frame& frame) const {
    if (is_number) return &number;
    return constant != nullptr ? constant : reinterpret_cast<const float*>(frame[value]);
  }
};

class BinaryStep : public Step {
 public:
  BinaryStep(const Instruction& instruction, const Context& context, BinaryFunction function,
             Operand x, Operand y, Nest<2> nest)
      : table_(context.table),
        to_(static_cast<size_t>(instruction.out)),
        function_(function),
        x_(std::move(x)),
        y_(std::move(y)),
        nest_(std::move(nest)) {}

  Work work() const override {
    return {nest_.elements() * 2 * kMoveWork, nest_.elements()};
  }
  void run(const Frame& frame, int thread, int threads) const override {
    const auto [begin, end] = share_of(nest_.elements(), kUnit, thread, threads);
    if (begin == end) return;
    const float *x = x_.at(frame), *y = y_.at(frame);
    auto* out = reinterpret_cast<float*>(frame[to_]);
    const auto& steps = nest_.steps();
    nest_.each_run(begin, end, [&](const auto& at, int64_t n) {
      if (steps[1] <= 1 && steps[2] <= 1) {
        return table_.floats.binary(function_, {x + at[1], y + at[2], out + at[0], n,
                                                steps[1] == 0, steps[2] == 0});
      }
      gather(x + at[1], y + at[2], out + at[0], n);
    });
  }

 private:
  static constexpr int64_t kUnit = 16, kGathered = 256;

  // Elements of an operand that do not lie side by side are brought together first.
  void gather(const float* x, const float* y, float* out, int64_t n) const {
    float near[2][kGathered];
    const int64_t steps[2] = {nest_.steps()[1], nest_.steps()[2]};
    for (int64_t i = 0; i < n; i += kGathered) {
      const int64_t count = std::min(kGathered, n - i);
      const float* from[2] = {x + i * steps[0], y + i * steps[1]};
      for (int j = 0; j < 2; j++) {
        if (steps[j] <= 1) continue;
        for (int64_t k = 0; k < count; k++) near[j][k] = from[j][k * steps[j]];
        from[j] = near[j];
      }
      table_.floats.binary(function_, {from[0], from[1], out + i, count, steps[0] == 0,
                                       steps[1] == 0});
    }
  }

  const KernelTable& table_;
  const size_t to_;
  const BinaryFunction function_;
  const Operand x_, y_;
  const Nest<2> nest_;
};

constexpr const char* kBinary = "float_binary";

Operand value_operand(const Context& context, int64_t index) {
  const Value& value = context.value(index);
  expect(value.dtype == Dtype::kFloat, kBinary, "expected float32 operands");
  return {nullptr, static_cast<size_t>(index), value.shape, strides_of(value), 0, false};
}

// Words: buffer or -1, its shape, a number.
Operand constant_operand(Operands& operands, const Context& context) {
  if (operands.is_absent()) {
    operands.integer();
    operands.integers(operands.integer());
    return {nullptr, 0, {}, {}, static_cast<float>(operands.real()), true};
  }
  Sizes shape;
  const float* const data = float_constant(kBinary, operands, context, shape);
  operands.real();
  Sizes strides = row_major_strides(shape);
  return {data, 0, std::move(shape), std::move(strides), 0, false};
}

Sizes broadcast(const Sizes& x, const Sizes& y) {
  Sizes shape(std::max(x.size(), y.size()), 1);
  for (const Sizes* from : {&x, &y}) {
    const size_t missing = shape.size() - from->size();
    for (size_t i = 0; i < from->size(); i++) {
      const int64_t size = (*from)[i];
      int64_t& wanted = shape[missing + i];
      if (wanted == 1) wanted = size;
      expect(size == wanted || size == 1, kBinary, "operands' shapes do not broadcast");
    }
  }
  return shape;
}

// An operand's strides along the result's dimensions, 0 where it repeats.
Sizes along(const Operand& operand, const Sizes& shape) {
  const size_t missing = shape.size() - operand.shape.size();
  Sizes strides(shape.size(), 0);
  for (size_t i = 0; i < operand.shape.size(); i++) {
    if (operand.shape[i] != 1) strides[missing + i] = operand.strides[i];
  }
  return strides;
}

}  // namespace

std::unique_ptr<Step> make_float_unary(const Instruction& instruction, Context& context) {
  constexpr const char* kStep = "float_unary";
  Operands operands(kStep, instruction);
  const int64_t function = operands.integer();
  const auto a = static_cast<float>(operands.real()), b = static_cast<float>(operands.real());
  const Value x = context.value(instruction.reads[0]);
  expect(x.dtype == Dtype::kFloat, kStep, "expected x float32");
  expect(function >= 0 && function < static_cast<int64_t>(UnaryFunction::kCount), kStep,
         "program: unknown function " + std::to_string(function));
  context.value(instruction.out) = x;
  return std::make_unique<UnaryStep>(instruction, context, x.elements(),
                                     static_cast<UnaryFunction>(function), a, b);
}

std::unique_ptr<Step> make_float_binary(const Instruction& instruction, Context& context) {
  Operands operands(kBinary, instruction);
  const int64_t function = operands.integer();
  expect(function >= 0 && function < static_cast<int64_t>(BinaryFunction::kCount), kBinary,
         "program: unknown function " + std::to_string(function));
  Operand constant = constant_operand(operands, context);
  const bool is_reversed = operands.integer() != 0;
  Operand x = value_operand(context, instruction.reads[0]);
  Operand y = instruction.reads.size() > 1 ? value_operand(context, instruction.reads[1])
                                           : std::move(constant);
  if (is_reversed) std::swap(x, y);
  Value out{Dtype::kFloat, broadcast(x.shape, y.shape), false};
  // The result lies as the value that has its shape.
  for (size_t i = instruction.reads.size(); i-- > 0;) {
    const Value& value = context.value(instruction.reads[i]);
    if (value.shape == out.shape) out = dense_like(value, out.shape);
  }
  const Sizes x_strides = along(x, out.shape), y_strides = along(y, out.shape);
  Nest<2> nest(out.shape, {strides_of(out), x_strides, y_strides});
  context.value(instruction.out) = std::move(out);
  return std::make_unique<BinaryStep>(instruction, context, static_cast<BinaryFunction>(function),
                                      std::move(x), std::move(y), std::move(nest));
}

}  // namespace fastinfer::engine
