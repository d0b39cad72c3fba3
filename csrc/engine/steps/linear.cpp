// int8_linear, int8_linear_dynamic and what it reads.
#include "../../cpu/quantized_rows.h"
#include "weighted_step.h"

namespace fastinfer::engine {
namespace {

class LinearStep : public WeightedStep {
 public:
  LinearStep(const Instruction& instruction, Context& context)
      : WeightedStep("int8_linear", instruction, context, PackedOp::kLinear) {
    const Value& x = context.value(instruction.reads[0]);
    const PackedHeader& h = *view_.header;
    // In NHWC memory the last dimension of a 4-D value is not the fastest.
    expect(x.dtype == Dtype::kUint8 && !x.shape.empty() && x.shape.size() != 4 &&
               x.shape.back() == h.k,
           "int8_linear",
           "expected x [*, " + std::to_string(h.k) + "], got " + shape_text(x));
    std::vector<int64_t> shape = x.shape;
    m_ = x.elements() / h.k;
    shape.back() = h.n;
    set_result(context, std::move(shape));
  }

  Work work() const override {
    const MatrixRows rows{nullptr, view_.header->k, view_.header->k};
    return GemmDriver(view_, rows, m_, {}).work();
  }
  void run(const Frame& frame, int thread, int threads) const override {
    const MatrixRows rows{read(frame, 0), view_.header->k, view_.header->k};
    GemmDriver(view_, rows, m_, bind(frame, view_.header->n)).run_part(thread, threads);
  }

 private:
  int64_t m_;
};

class QuantizeRowsStep : public Step {
 public:
  QuantizeRowsStep(const Instruction& instruction, Context& context)
      : table_(context.table),
        from_(static_cast<size_t>(instruction.reads[0])),
        to_(static_cast<size_t>(instruction.out)) {
    const Value x = context.value(instruction.reads[0]);
    expect(x.dtype == Dtype::kFloat && !x.shape.empty() && x.shape.back() > 0, kName,
           "expected x float32 [*, K], got " + shape_text(x));
    k_ = x.shape.back();
    rows_ = x.elements() / k_;
    Value out{Dtype::kUint8, x.shape, x.is_planar};
    out.shape.back() = QuantizedRow{k_}.bytes();
    context.value(instruction.out) = std::move(out);
  }

  Work work() const override { return driver(nullptr, nullptr).work(); }
  void run(const Frame& frame, int thread, int threads) const override {
    driver(reinterpret_cast<const float*>(frame[from_]), frame[to_]).run_part(thread, threads);
  }

 private:
  static constexpr const char* kName = "int8_linear_dynamic";
  RowQuantizer driver(const float* x, uint8_t* out) const { return {table_, x, out, rows_, k_}; }

  const KernelTable& table_;
  const size_t from_, to_;
  int64_t k_, rows_;
};

// Reads what a QuantizeRowsStep made. Words: weight, out features; a plan adds how many numbers x has in a row.
class LinearDynamicStep : public WeightedStep {
 public:
  LinearDynamicStep(const Instruction& instruction, Context& context)
      : WeightedStep(kName, instruction, context, PackedOp::kLinear, /*is_dynamic=*/true) {
    const PackedHeader& h = *view_.header;
    std::vector<int64_t> shape = context.value(instruction.reads[0]).shape;
    expect(instruction.words.size() == 3 && instruction.words[2] == h.k, kName,
           "expected x [*, " + std::to_string(h.k) + "], got rows of " +
               std::to_string(instruction.words.back()));
    m_ = context.value(instruction.reads[0]).elements() / QuantizedRow{h.k}.bytes();
    shape.back() = h.n;
    set_result(context, std::move(shape));
    Value& out = context.value(instruction.out);
    out.is_planar = out.shape.size() == 4;
  }

  Work work() const override {
    const MatrixRows rows = QuantizedRow{view_.header->k}.matrix(nullptr);
    return GemmDriver(view_, rows, m_, {}).work();
  }
  void run(const Frame& frame, int thread, int threads) const override {
    const uint8_t* x = read(frame, 0);
    const QuantizedRow row{view_.header->k};
    GemmOutput output = bind(frame, view_.header->n);
    row.bind(x, output);
    const MatrixRows rows = row.matrix(x);
    GemmDriver(view_, rows, m_, output).run_part(thread, threads);
  }

 private:
  static constexpr const char* kName = "int8_linear_dynamic";
  int64_t m_;
};

}  // namespace

std::unique_ptr<Step> make_linear(const Instruction& instruction, Context& context) {
  return std::make_unique<LinearStep>(instruction, context);
}

std::unique_ptr<Step> make_linear_dynamic(const Instruction& instruction, Context& context) {
  return std::make_unique<LinearDynamicStep>(instruction, context);
}

std::unique_ptr<Step> make_quantize_rows(const Instruction& instruction, Context& context) {
  return std::make_unique<QuantizeRowsStep>(instruction, context);
}

}  // namespace fastinfer::engine
