// int8_upsample2d, float_upsample2d.
#include "../../cpu/upsample_driver.h"
#include "../../upsampled_size.h"
#include "../step.h"

namespace fastinfer::engine {
namespace {

// Driver: Upsample or FloatUpsample.
template <class Driver>
class UpsampleStep : public Step {
 public:
  UpsampleStep(const Instruction& instruction, const Context& context, const Value& x,
               UpsampleAxis h, UpsampleAxis w)
      : from_(static_cast<size_t>(instruction.reads[0])),
        to_(static_cast<size_t>(instruction.out)),
        table_(context.table),
        h_(std::move(h)),
        w_(std::move(w)),
        batch_(x.shape[0]),
        channels_(x.shape[1]) {}

  Work work() const override { return driver(nullptr, nullptr).work(); }
  void run(const Frame& frame, int thread, int threads) const override {
    driver(frame[from_], frame[to_]).run_part(thread, threads);
  }

 private:
  Driver driver(const uint8_t* x, uint8_t* out) const {
    using Element = typename Driver::Element;
    return {table_, h_, w_, batch_, channels_, reinterpret_cast<const Element*>(x),
            reinterpret_cast<Element*>(out)};
  }

  const size_t from_, to_;
  const KernelTable& table_;
  const UpsampleAxis h_, w_;
  const int64_t batch_, channels_;
};

// What an instruction says of its result: a size that is a second value's, or given, or by factors.
struct Resize {
  int64_t size[2];
  double factors[2];

  UpsampleAxis nearest(const Value& x, size_t i) const {
    return UpsampleAxis::nearest(x.shape[i + 2], size[i], factors[i]);
  }
  UpsampleAxis linear(const Value& x, size_t i, bool align_corners) const {
    return UpsampleAxis::linear(x.shape[i + 2], size[i], factors[i], align_corners);
  }
  std::vector<int64_t> shape(const Value& x) const {
    return {x.shape[0], x.shape[1], size[0], size[1]};
  }
};

Resize read_resize(const char* step, Operands& operands, const Instruction& instruction,
                   const Context& context, const Value& x) {
  Resize to{{operands.integer(), operands.integer()}, {operands.real(), operands.real()}};
  for (size_t i = 0; i < 2; i++) {
    if (instruction.reads.size() > 1) {
      const Value& like = context.value(instruction.reads[1]);
      expect(like.shape.size() == 4, step, "expected like [N, C, H, W], got " + shape_text(like));
      to.size[i] = like.shape[i + 2];
    } else if (to.factors[i] > 0) {
      to.size[i] = upsampled_size(x.shape[i + 2], to.factors[i]);
    }
    expect(x.shape[i + 2] > 0 && to.size[i] > 0, step,
           "expected sizes >= 1, got " + shape_text(x) + " to " + std::to_string(to.size[i]));
  }
  return to;
}

}  // namespace

std::unique_ptr<Step> make_upsample2d(const Instruction& instruction, Context& context) {
  constexpr const char* kStep = "int8_upsample2d";
  Operands operands(kStep, instruction);
  const Value x = image(kStep, instruction, context);
  const Resize to = read_resize(kStep, operands, instruction, context, x);
  const bool bilinear = operands.integer() != 0, align_corners = operands.integer() != 0;
  const auto axis = [&](size_t i) {
    return bilinear ? to.linear(x, i, align_corners) : to.nearest(x, i);
  };
  context.value(instruction.out) = {Dtype::kUint8, to.shape(x), false};
  return std::make_unique<UpsampleStep<Upsample>>(instruction, context, x, axis(0), axis(1));
}

std::unique_ptr<Step> make_float_upsample2d(const Instruction& instruction, Context& context) {
  constexpr const char* kStep = "float_upsample2d";
  Operands operands(kStep, instruction);
  const Value x = context.value(instruction.reads[0]);
  expect(x.dtype == Dtype::kFloat && x.shape.size() == 4, kStep,
         "expected x float32 [N, C, H, W], got " + shape_text(x));
  const Resize to = read_resize(kStep, operands, instruction, context, x);
  const bool align_corners = operands.integer() != 0;
  context.value(instruction.out) = {Dtype::kFloat, to.shape(x), true};
  return std::make_unique<UpsampleStep<FloatUpsample>>(
      instruction, context, x, to.linear(x, 0, align_corners), to.linear(x, 1, align_corners));
}

}  // namespace fastinfer::engine
