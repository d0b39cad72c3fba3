// What stands between layers: pooling, addition, multiplication.
#include "../../cpu/pointwise_driver.h"
#include "../../cpu/pool_driver.h"
#include "../step.h"

namespace fastinfer::engine {
namespace {

// A step whose driver is a struct of sizes and numbers; only pointers are missing.
template <class Args>
class ArgsStep : public Step {
 public:
  ArgsStep(const Instruction& instruction, Context& context, const Args& args, Work work)
      : reads_(instruction.reads), out_(instruction.out), table_(context.table), args_(args),
        work_(work) {}

  Work work() const override { return work_; }
  void run(const Frame& frame, int thread, int threads) const override {
    if (work_.cost == 0) return;
    Args args = args_;
    bind(args, frame);
    run_part(args, table_, thread, threads);
  }

 protected:
  virtual void bind(Args& args, const Frame& frame) const = 0;
  const uint8_t* read(const Frame& frame, size_t index) const {
    return frame[static_cast<size_t>(reads_[index])];
  }
  uint8_t* out(const Frame& frame) const { return frame[static_cast<size_t>(out_)]; }

 private:
  const std::vector<int64_t> reads_;
  const int64_t out_;
  const KernelTable& table_;
  const Args args_;
  const Work work_;
};

template <class Args>
class PoolStep : public ArgsStep<Args> {
 public:
  using ArgsStep<Args>::ArgsStep;

 protected:
  void bind(Args& args, const Frame& frame) const override {
    args.x = this->read(frame, 0);
    args.out = this->out(frame);
  }
};

template <class Args>
class PairStep : public ArgsStep<Args> {
 public:
  using ArgsStep<Args>::ArgsStep;

 protected:
  void bind(Args& args, const Frame& frame) const override {
    args.pair.x = this->read(frame, 0);
    args.pair.y = this->read(frame, 1);
    args.pair.out = this->out(frame);
  }
};

struct Pairs {
  int64_t kernel[2], stride[2], padding[2];
};

Pairs read_pairs(Operands& operands) {
  Pairs pairs{};
  for (auto* pair : {pairs.kernel, pairs.stride, pairs.padding}) {
    const auto numbers = operands.integers(2);
    pair[0] = numbers[0];
    pair[1] = numbers[1];
  }
  return pairs;
}

Requantize read_map(Operands& operands) {
  Requantize map{};
  map.multiplier = static_cast<float>(operands.real());
  map.x_zero_point = static_cast<int32_t>(operands.integer());
  map.out_zero_point = static_cast<int32_t>(operands.integer());
  map.qmin = static_cast<int32_t>(operands.integer());
  map.qmax = static_cast<int32_t>(operands.integer());
  return map;
}

// Sets the result's shape and returns the step.
template <class Args>
std::unique_ptr<Step> pool_step(const char* step, const Instruction& instruction,
                                Context& context, Args args) {
  const Value x = image(step, instruction, context);
  args.batch = x.shape[0];
  args.channels = x.shape[1];
  expect(args.h.out > 0 && args.w.out > 0, step, "no window fits " + shape_text(x));
  context.value(instruction.out) = {
      Dtype::kUint8, {x.shape[0], x.shape[1], args.h.out, args.w.out}, false};
  args.x_step = context.pixel_step(instruction.reads[0]);
  args.out_step = context.pixel_step(instruction.out);
  return std::make_unique<PoolStep<Args>>(instruction, context, args, work_of(args));
}

PairArgs pair_args(const char* step, const Instruction& instruction, Context& context) {
  expect(instruction.reads.size() == 2, step, "expected x and y");
  const Value x = context.value(instruction.reads[0]);
  const Value& y = context.value(instruction.reads[1]);
  expect(x.dtype == Dtype::kUint8 && y.dtype == Dtype::kUint8,
         step, "expected x and y uint8");
  context.value(instruction.out) = {Dtype::kUint8, x.shape, false};
  PairArgs args{};
  if (x.shape == y.shape) {
    args.images = args.channels = 1;
    args.pixels = x.elements();
    return args;
  }
  const bool fits = x.shape.size() == 4 &&
                    y.shape == std::vector<int64_t>{x.shape[0], x.shape[1], 1, 1};
  expect(fits, step, "expected y with x's shape or [N, C, 1, 1], got " + shape_text(x) + " and " +
                         shape_text(y));
  args.images = x.shape[0];
  args.pixels = x.shape[2] * x.shape[3];
  args.channels = x.shape[1];
  args.y_repeats = true;
  return args;
}

}  // namespace

std::unique_ptr<Step> make_max_pool2d(const Instruction& instruction, Context& context) {
  constexpr const char* kStep = "int8_max_pool2d";
  Operands operands(kStep, instruction);
  const Pairs p = read_pairs(operands);
  const auto dilation = operands.integers(2);
  const bool ceil_mode = operands.integer() != 0;
  const Value& x = image(kStep, instruction, context);
  MaxPoolArgs args{};
  args.h = PoolAxis::of(x.shape[2], p.kernel[0], p.stride[0], p.padding[0], dilation[0], ceil_mode);
  args.w = PoolAxis::of(x.shape[3], p.kernel[1], p.stride[1], p.padding[1], dilation[1], ceil_mode);
  return pool_step(kStep, instruction, context, args);
}

std::unique_ptr<Step> make_avg_pool2d(const Instruction& instruction, Context& context) {
  constexpr const char* kStep = "int8_avg_pool2d";
  Operands operands(kStep, instruction);
  const Pairs p = read_pairs(operands);
  const bool ceil_mode = operands.integer() != 0;
  AvgPoolArgs args{};
  args.count_include_pad = operands.integer() != 0;
  args.map = read_map(operands);
  const Value& x = image(kStep, instruction, context);
  args.h = PoolAxis::of(x.shape[2], p.kernel[0], p.stride[0], p.padding[0], 1, ceil_mode);
  args.w = PoolAxis::of(x.shape[3], p.kernel[1], p.stride[1], p.padding[1], 1, ceil_mode);
  return pool_step(kStep, instruction, context, args);
}

std::unique_ptr<Step> make_adaptive_avg_pool2d(const Instruction& instruction, Context& context) {
  constexpr const char* kStep = "int8_adaptive_avg_pool2d";
  Operands operands(kStep, instruction);
  const auto size = operands.integers(2);
  AvgPoolArgs args{};
  args.map = read_map(operands);
  const Value& x = image(kStep, instruction, context);
  args.h = PoolAxis::adaptive(x.shape[2], size[0]);
  args.w = PoolAxis::adaptive(x.shape[3], size[1]);
  return pool_step(kStep, instruction, context, args);
}

std::unique_ptr<Step> make_add(const Instruction& instruction, Context& context) {
  constexpr const char* kStep = "int8_add";
  Operands operands(kStep, instruction);
  AddArgs args{};
  args.map.multiplier = static_cast<float>(operands.real());
  args.map.x_zero_point = static_cast<int32_t>(operands.integer());
  args.y_multiplier = static_cast<float>(operands.real());
  args.y_zero_point = static_cast<int32_t>(operands.integer());
  args.map.out_zero_point = static_cast<int32_t>(operands.integer());
  args.map.qmin = static_cast<int32_t>(operands.integer());
  args.map.qmax = static_cast<int32_t>(operands.integer());
  if (!operands.is_absent()) {
    const Weight& entries = operands.weight(context);
    expect(entries.bytes == 256, kStep, "expected a table of 256 bytes");
    args.lookup = entries.data;
  }
  args.pair = pair_args(kStep, instruction, context);
  return std::make_unique<PairStep<AddArgs>>(instruction, context, args, work_of(args.pair));
}

std::unique_ptr<Step> make_mul(const Instruction& instruction, Context& context) {
  constexpr const char* kStep = "int8_mul";
  Operands operands(kStep, instruction);
  MulArgs args{};
  args.map.multiplier = static_cast<float>(operands.real());
  args.map.x_zero_point = static_cast<int32_t>(operands.integer());
  args.y_zero_point = static_cast<int32_t>(operands.integer());
  args.map.out_zero_point = static_cast<int32_t>(operands.integer());
  args.map.qmin = static_cast<int32_t>(operands.integer());
  args.map.qmax = static_cast<int32_t>(operands.integer());
  args.pair = pair_args(kStep, instruction, context);
  return std::make_unique<PairStep<MulArgs>>(instruction, context, args, work_of(args.pair));
}

}  // namespace fastinfer::engine
