// int8_upsample2d.
#include "../../cpu/upsample_driver.h"
#include "../../upsampled_size.h"
#include "../step.h"

namespace fastinfer::engine {
namespace {

class UpsampleStep : public Step {
 public:
  UpsampleStep(const Instruction& instruction, const Context& context, const Value& x,
               UpsampleAxis h, UpsampleAxis w, bool bilinear)
      : from_(static_cast<size_t>(instruction.reads[0])),
        to_(static_cast<size_t>(instruction.out)),
        table_(context.table),
        h_(std::move(h)),
        w_(std::move(w)),
        bilinear_(bilinear),
        batch_(x.shape[0]),
        channels_(x.shape[1]) {}

  Work work() const override { return upsample(nullptr, nullptr).work(); }
  void run(const Frame& frame, int thread, int threads) const override {
    upsample(frame[from_], frame[to_]).run_part(table_, thread, threads);
  }

 private:
  Upsample upsample(const uint8_t* x, uint8_t* out) const {
    return {h_, w_, bilinear_, batch_, channels_, x, out};
  }

  const size_t from_, to_;
  const KernelTable& table_;
  const UpsampleAxis h_, w_;
  const bool bilinear_;
  const int64_t batch_, channels_;
};

}  // namespace

// The size is a second value's, or given, or by factors.
std::unique_ptr<Step> make_upsample2d(const Instruction& instruction, Context& context) {
  constexpr const char* kStep = "int8_upsample2d";
  Operands operands(kStep, instruction);
  int64_t size[2] = {operands.integer(), operands.integer()};
  const double factors[2] = {operands.real(), operands.real()};
  const bool bilinear = operands.integer() != 0, align_corners = operands.integer() != 0;
  const Value x = image(kStep, instruction, context);
  for (size_t i = 0; i < 2; i++) {
    if (instruction.reads.size() > 1) {
      const Value& like = context.value(instruction.reads[1]);
      expect(like.shape.size() == 4, kStep, "expected like [N, C, H, W], got " + shape_text(like));
      size[i] = like.shape[i + 2];
    } else if (factors[i] > 0) {
      size[i] = upsampled_size(x.shape[i + 2], factors[i]);
    }
    expect(x.shape[i + 2] > 0 && size[i] > 0, kStep,
           "expected sizes >= 1, got " + shape_text(x) + " to " + std::to_string(size[i]));
  }
  const auto axis = [&](size_t i) {
    const int64_t from = x.shape[i + 2];
    return bilinear ? UpsampleAxis::linear(from, size[i], factors[i], align_corners)
                    : UpsampleAxis::nearest(from, size[i], factors[i]);
  };
  context.value(instruction.out) = {
      Dtype::kUint8, {x.shape[0], x.shape[1], size[0], size[1]}, false};
  return std::make_unique<UpsampleStep>(instruction, context, x, axis(0), axis(1), bilinear);
}

}  // namespace fastinfer::engine
