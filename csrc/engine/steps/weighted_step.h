// What steps with a packed weight have in common. Torch-free.
#pragma once

#include "../../cpu/gemm_driver.h"
#include "../../cpu/packed_view.h"
#include "../step.h"

namespace fastinfer::engine {

class WeightedStep : public Step {
 public:
  // Reads x and, where the weight was packed with one, a residual; the first word is the weight.
  WeightedStep(const char* name, const Instruction& instruction, const Context& context,
               PackedOp op, bool is_dynamic = false)
      : name_(name), instruction_(instruction) {
    const Weight& weight = Operands(name, instruction).weight(context);
    const auto& h = *reinterpret_cast<const PackedHeader*>(weight.data);
    expect(weight.bytes >= kPackedHeaderBytes && std::memcmp(h.magic, kPackedMagic, 4) == 0 &&
               h.version == kPackedVersion && h.total_bytes == weight.bytes,
           name, "packed: not a packed weight of this version; pack it with int8_prepack");
    expect(h.layout == static_cast<int32_t>(context.table.isa), name,
           "packed: packed for another ISA than the one in force; pack it again "
           "(fastinfer.nn.repack(model))");
    expect(h.op == static_cast<int32_t>(op) && h.has(kFlagDynamic) == is_dynamic, name,
           std::string("packed: expected a ") + (is_dynamic ? "dynamic" : "static") +
               " weight packed for this op");
    view_ = {&h, weight.data, &context.table};
    view_.is_read_once = context.are_weights_read_once;
    const size_t reads = h.has(kFlagResidual) ? 2 : 1;
    expect(instruction.reads.size() == reads, name,
           "residual: the weight was packed for " + std::string(reads == 2 ? "one" : "none"));
    float_output_ = h.has(kFlagFloatOutput);
    first_[0] = {weight.data, kPackedHeaderBytes};
    first_[1] = {weight.data + h.bias, kFirstChannels * 4};
    first_[2] = {weight.data + h.multiplier, kFirstChannels * 4};
    first_[3] = {weight.data + h.weight, std::min(h.weight_bytes, kFirstBytes)};
    if (static_cast<GemmForm>(h.form) == GemmForm::kSparse) {
      first_[4] = {weight.data + h.index, std::min(h.index_bytes, kFirstIndexBytes)};
    }
  }

  void fetch() const override {
    for (const auto& [data, bytes] : first_) prefetch_weight(data, bytes, view_.is_read_once);
  }

 protected:
  void set_result(Context& context, std::vector<int64_t> shape) {
    Value& out = context.value(instruction_.out);
    out = {float_output_ ? Dtype::kFloat : Dtype::kUint8, std::move(shape), false};
    if (instruction_.reads.size() < 2) return;
    const Value& residual = context.value(instruction_.reads[1]);
    expect(residual.shape == out.shape && residual.dtype == out.dtype, name_,
           "expected residual with the result's shape, got " + shape_text(residual));
  }

  const uint8_t* read(const Frame& frame, size_t index) const {
    return frame[static_cast<size_t>(instruction_.reads[index])];
  }

  GemmOutput bind(const Frame& frame, int64_t ldc) const {
    GemmOutput output;
    output.ldc = ldc;
    uint8_t* const to = frame[static_cast<size_t>(instruction_.out)];
    const uint8_t* const residual = instruction_.reads.size() > 1 ? read(frame, 1) : nullptr;
    if (float_output_) {
      output.out_f32 = reinterpret_cast<float*>(to);
      output.residual_f32 = reinterpret_cast<const float*>(residual);
    } else {
      output.out_u8 = to;
      output.residual_u8 = residual;
    }
    return output;
  }

  PackedView view_;
  bool float_output_;

 private:
  // What kernels read before they fetch the rest for themselves.
  static constexpr int64_t kFirstChannels = 32, kFirstBytes = 8192, kFirstIndexBytes = 2048;
  struct Part {
    const uint8_t* data = nullptr;
    int64_t bytes = 0;
  };
  Part first_[5];
  const char* name_;
  Instruction instruction_;
};

}  // namespace fastinfer::engine
