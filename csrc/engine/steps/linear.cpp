// int8_linear.
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
    const MatrixRows rows{nullptr, view_.header->k};
    return GemmDriver(view_, rows, m_, {}).work();
  }
  void run(const Frame& frame, int thread, int threads) const override {
    const MatrixRows rows{read(frame, 0), view_.header->k};
    GemmDriver(view_, rows, m_, bind(frame, view_.header->n)).run_part(thread, threads);
  }

 private:
  int64_t m_;
};

}  // namespace

std::unique_ptr<Step> make_linear(const Instruction& instruction, Context& context) {
  return std::make_unique<LinearStep>(instruction, context);
}

}  // namespace fastinfer::engine
