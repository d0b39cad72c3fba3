// int8_cat.
#include "cat.h"

#include <utility>

#include "../views.h"

namespace fastinfer::engine {
namespace {

constexpr const char* kStep = "int8_cat";

class CatStep : public Step {
 public:
  CatStep(int64_t out, const KernelTable& table, const CatArgs& args,
          std::vector<CatPart> parts, std::vector<int64_t> reads)
      : reads_(std::move(reads)), out_(out), table_(table), args_(args),
        parts_(std::move(parts)), work_(work_of(args)) {}

  Work work() const override { return work_; }
  void run(const Frame& frame, int thread, int threads) const override {
    if (work_.cost == 0) return;
    std::vector<CatPart> parts = parts_;
    for (size_t i = 0; i < parts.size(); i++) parts[i].x = frame[static_cast<size_t>(reads_[i])];
    CatArgs args = args_;
    args.parts = parts.data();
    args.out = frame[static_cast<size_t>(out_)];
    run_part(args, table_, thread, threads);
  }

 private:
  const std::vector<int64_t> reads_;  // a value for each part
  const int64_t out_;
  const KernelTable& table_;
  const CatArgs args_;
  const std::vector<CatPart> parts_;
  const Work work_;
};

}  // namespace

CatOperands read_cat(const Instruction& instruction) {
  Operands operands(kStep, instruction);
  const size_t count = instruction.reads.size();
  CatOperands cat{static_cast<size_t>(operands.integer()), std::vector<CatPart>(count)};
  expect(count > 0 && operands.integer() == static_cast<int64_t>(count), kStep,
         "expected a multiplier for each tensor");
  for (CatPart& part : cat.parts) part.map.multiplier = static_cast<float>(operands.real());
  expect(operands.integer() == static_cast<int64_t>(count), kStep,
         "expected a zero point for each tensor");
  for (CatPart& part : cat.parts) {
    part.map.x_zero_point = static_cast<int32_t>(operands.integer());
  }
  const auto out_zero_point = static_cast<int32_t>(operands.integer());
  for (CatPart& part : cat.parts) {
    part.map.out_zero_point = out_zero_point;
    part.map.qmax = 255;
  }
  return cat;
}

// Joins the parts that do not lie in the result already.
std::unique_ptr<Step> make_cat(const Instruction& instruction, Context& context) {
  CatOperands cat = read_cat(instruction);
  const size_t dim = cat.dim;
  Value out = context.value(instruction.reads[0]);
  expect(dim < out.shape.size(), kStep, "no dimension " + std::to_string(dim));
  // In NHWC memory other dimensions than the batch and the channels do not lie in their order.
  expect(out.shape.size() != 4 || dim < 2, kStep,
         "expected the batch's or the channels' dimension");
  const bool is_channels = joins_channels(cat, out);
  out.shape[dim] = 0;
  // Where channels are, in NHWC memory, all that lies behind one index of the other dimensions.
  CatArgs args{};
  args.rows = 1;
  for (size_t i = 0; i < out.shape.size(); i++) {
    if (i == dim) continue;
    if (is_channels || i < dim) args.rows *= out.shape[i];
  }
  for (size_t i = 0; i < cat.parts.size(); i++) {
    const Value& x = context.value(instruction.reads[i]);
    std::vector<int64_t> wanted = out.shape;
    if (x.shape.size() > dim) wanted[dim] = x.shape[dim];
    expect(x.dtype == Dtype::kUint8 && x.shape == wanted, kStep,
           "expected uint8 tensors that differ in one dimension, got " + shape_text(x));
    out.shape[dim] += x.shape[dim];
    CatPart& part = cat.parts[i];
    part.width = args.rows == 0 ? 0 : x.elements() / args.rows;
    part.step = is_channels ? context.pixel_step(instruction.reads[i]) : part.width;
    part.first = args.step;
    args.step += part.width;
  }
  context.value(instruction.out) = out;
  if (is_channels) args.step = context.pixel_step(instruction.out);
  std::vector<CatPart> copied;
  std::vector<int64_t> reads;
  for (const size_t i : copied_parts(instruction, context.values, context.places)) {
    copied.push_back(cat.parts[i]);
    reads.push_back(instruction.reads[i]);
    args.width += cat.parts[i].width;
  }
  args.count = static_cast<int64_t>(copied.size());
  return std::make_unique<CatStep>(instruction.out, context.table, args, std::move(copied),
                                   std::move(reads));
}

}  // namespace fastinfer::engine
