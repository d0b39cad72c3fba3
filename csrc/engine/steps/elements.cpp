// quantize, dequantize, int8_lookup: every element on its own.
#include <algorithm>

#include "../../cpu/plane_quantizer.h"
#include "../step.h"

namespace fastinfer::engine {
namespace {

// A thread's share is a run of elements.
class ElementStep : public Step {
 public:
  ElementStep(const Instruction& instruction, const Value& x)
      : from_(static_cast<size_t>(instruction.reads[0])),
        to_(static_cast<size_t>(instruction.out)),
        count_(x.elements()) {}

  Work work() const override { return {count_ * kMoveWork, count_}; }
  void run(const Frame& frame, int thread, int threads) const override {
    const auto [begin, end] = share_of(count_, thread, threads);
    if (begin < end) run_range(frame[from_], frame[to_], begin, end - begin);
  }

 protected:
  // Elements [begin, begin + count) of from and to.
  virtual void run_range(const uint8_t* from, uint8_t* to, int64_t begin, int64_t count) const = 0;

  size_t from_, to_;
  int64_t count_;
};

class QuantizeStep : public ElementStep {
 public:
  QuantizeStep(const Instruction& instruction, const Value& x, const KernelTable& table,
               float inverse_scale, int32_t zero_point)
      : ElementStep(instruction, x),
        table_(table),
        inverse_scale_(inverse_scale),
        zero_point_(zero_point) {}

 protected:
  void run_range(const uint8_t* from, uint8_t* to, int64_t begin, int64_t count) const override {
    table_.quantize(reinterpret_cast<const float*>(from) + begin, to + begin, count,
                    inverse_scale_, zero_point_);
  }
  const KernelTable& table_;
  float inverse_scale_;
  int32_t zero_point_;
};

class QuantizePlanesStep : public QuantizeStep {
 public:
  QuantizePlanesStep(const Instruction& instruction, const Value& x, const KernelTable& table,
                     float inverse_scale, int32_t zero_point)
      : QuantizeStep(instruction, x, table, inverse_scale, zero_point),
        batch_(x.shape[0]),
        channels_(x.shape[1]),
        pixels_(x.shape[2] * x.shape[3]) {}

  Work work() const override { return quantizer(nullptr, nullptr).work(); }
  void run(const Frame& frame, int thread, int threads) const override {
    if (count_ == 0) return;
    quantizer(reinterpret_cast<const float*>(frame[from_]), frame[to_]).run_part(thread, threads);
  }

 private:
  PlaneQuantizer quantizer(const float* x, uint8_t* q) const {
    return {table_, x, q, batch_, channels_, pixels_, inverse_scale_, zero_point_};
  }
  int64_t batch_, channels_, pixels_;
};

class DequantizeStep : public ElementStep {
 public:
  DequantizeStep(const Instruction& instruction, const Value& x, const KernelTable& table,
                 float scale, int32_t zero_point)
      : ElementStep(instruction, x), table_(table), scale_(scale), zero_point_(zero_point) {}

 protected:
  void run_range(const uint8_t* from, uint8_t* to, int64_t begin, int64_t count) const override {
    table_.dequantize(from + begin, reinterpret_cast<float*>(to) + begin, count, scale_,
                      zero_point_);
  }

 private:
  const KernelTable& table_;
  float scale_;
  int32_t zero_point_;
};

class LookupStep : public ElementStep {
 public:
  LookupStep(const Instruction& instruction, const Value& x, const KernelTable& table,
             const uint8_t* entries)
      : ElementStep(instruction, x), table_(table), entries_(entries) {}

 protected:
  void run_range(const uint8_t* from, uint8_t* to, int64_t begin, int64_t count) const override {
    table_.lookup(from + begin, to + begin, count, entries_);
  }

 private:
  const KernelTable& table_;
  const uint8_t* entries_;
};

}  // namespace

std::unique_ptr<Step> make_quantize(const Instruction& instruction, Context& context) {
  Operands operands("quantize", instruction);
  const auto scale = static_cast<float>(operands.real());
  const auto zero_point = static_cast<int32_t>(operands.integer());
  const Value x = context.value(instruction.reads[0]);
  expect(x.dtype == Dtype::kFloat && scale > 0 && zero_point >= 0 && zero_point <= 255, "quantize",
         "expected x float32, scale > 0 and zero_point in 0..255");
  context.value(instruction.out) = {Dtype::kUint8, x.shape, false, x.strides};
  const float inverse = 1.0f / scale;
  if (x.is_planar && x.shape[1] > 1) {
    return std::make_unique<QuantizePlanesStep>(instruction, x, context.table, inverse,
                                                zero_point);
  }
  return std::make_unique<QuantizeStep>(instruction, x, context.table, inverse, zero_point);
}

std::unique_ptr<Step> make_dequantize(const Instruction& instruction, Context& context) {
  Operands operands("dequantize", instruction);
  const auto scale = static_cast<float>(operands.real());
  const auto zero_point = static_cast<int32_t>(operands.integer());
  const Value& x = context.value(instruction.reads[0]);
  expect(x.dtype == Dtype::kUint8, "dequantize", "expected x uint8");
  context.value(instruction.out) = {Dtype::kFloat, x.shape, x.is_planar, x.strides};
  return std::make_unique<DequantizeStep>(instruction, x, context.table, scale, zero_point);
}

std::unique_ptr<Step> make_lookup(const Instruction& instruction, Context& context) {
  const Weight& entries = Operands("int8_lookup", instruction).weight(context);
  expect(entries.bytes == 256, "int8_lookup", "expected a table of 256 bytes");
  const Value& x = context.value(instruction.reads[0]);
  expect(x.dtype == Dtype::kUint8, "int8_lookup", "expected x uint8");
  context.value(instruction.out) = {Dtype::kUint8, x.shape, x.is_planar, x.strides};
  return std::make_unique<LookupStep>(instruction, x, context.table, entries.data);
}

}  // namespace fastinfer::engine
