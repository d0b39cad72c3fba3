// float_layer_norm, float_softmax, float_global_avg_pool2d.
#include "../../cpu/row_work.h"
#include "../step.h"

namespace fastinfer::engine {
namespace {

class RowsStep : public Step {
 public:
  RowsStep(const Instruction& instruction, const Context& context, const Value& x, int64_t n)
      : table_(context.table),
        n_(n),
        from_(static_cast<size_t>(instruction.reads[0])),
        to_(static_cast<size_t>(instruction.out)),
        work_(n == 0 ? Work{0, 0} : row_work(x.elements(), n)) {}

  Work work() const override { return work_; }
  void run(const Frame& frame, int thread, int threads) const override {
    const auto [begin, end] = share_of(work_.parts, thread, threads);
    if (begin == end) return;
    const int64_t at = begin * n_;
    run_rows(reinterpret_cast<const float*>(frame[from_]) + at,
             reinterpret_cast<float*>(frame[to_]) + at, end - begin);
  }

 protected:
  virtual void run_rows(const float* x, float* out, int64_t rows) const = 0;

  const KernelTable& table_;
  const int64_t n_;

 private:
  const size_t from_, to_;
  const Work work_;
};

class LayerNormStep : public RowsStep {
 public:
  LayerNormStep(const Instruction& instruction, const Context& context, const Value& x, int64_t n,
                const float* weight, const float* bias, float eps)
      : RowsStep(instruction, context, x, n), weight_(weight), bias_(bias), eps_(eps) {}

 protected:
  void run_rows(const float* x, float* out, int64_t rows) const override {
    table_.layer_norm({x, out, rows, n_, weight_, bias_, eps_});
  }

 private:
  const float *weight_, *bias_;
  const float eps_;
};

class SoftmaxStep : public RowsStep {
 public:
  using RowsStep::RowsStep;

 protected:
  void run_rows(const float* x, float* out, int64_t rows) const override {
    table_.softmax({x, out, rows, n_});
  }
};

class ChannelMeanStep : public Step {
 public:
  ChannelMeanStep(const Instruction& instruction, const Context& context, const Value& x)
      : table_(context.table),
        from_(static_cast<size_t>(instruction.reads[0])),
        to_(static_cast<size_t>(instruction.out)),
        images_(x.shape[0]),
        channels_(x.shape[1]),
        pixels_(x.shape[2] * x.shape[3]) {}

  Work work() const override { return driver(nullptr, nullptr).work(); }
  void run(const Frame& frame, int thread, int threads) const override {
    driver(frame[from_], frame[to_]).run_part(thread, threads);
  }

 private:
  ChannelMeanDriver driver(const uint8_t* x, uint8_t* out) const {
    return {table_, reinterpret_cast<const float*>(x), reinterpret_cast<float*>(out),
            images_, channels_, pixels_};
  }

  const KernelTable& table_;
  const size_t from_, to_;
  const int64_t images_, channels_, pixels_;
};

// Elements of a row. An image's rows are its pixels' channels.
int64_t row_of(const char* step, const Instruction& instruction, Context& context, int64_t dim) {
  const Value x = context.value(instruction.reads[0]);
  const auto rank = static_cast<int64_t>(x.shape.size());
  // Where one dimension is all there is, a batch in slices would cut rows.
  expect(x.dtype == Dtype::kFloat && rank > 1, step,
         "expected x float32 with a batch, got " + shape_text(x));
  expect(dim == (rank == 4 && !x.is_planar ? 1 : rank - 1), step,
         "expected dim to be the last, or an image's channels, got " + std::to_string(dim) +
             " of " + shape_text(x));
  context.value(instruction.out) = {Dtype::kFloat, x.shape, x.is_planar};
  return x.shape[static_cast<size_t>(dim)];
}

}  // namespace

std::unique_ptr<Step> make_layer_norm(const Instruction& instruction, Context& context) {
  constexpr const char* kStep = "float_layer_norm";
  Operands operands(kStep, instruction);
  const int64_t n = row_of(kStep, instruction, context, operands.integer());
  const float* weight = float_parameter(kStep, operands, context, n);
  const float* bias = float_parameter(kStep, operands, context, n);
  const auto eps = static_cast<float>(operands.real());
  const Value& x = context.value(instruction.reads[0]);
  return std::make_unique<LayerNormStep>(instruction, context, x, n, weight, bias, eps);
}

std::unique_ptr<Step> make_softmax(const Instruction& instruction, Context& context) {
  constexpr const char* kStep = "float_softmax";
  const int64_t dim = Operands(kStep, instruction).integer();
  const int64_t n = row_of(kStep, instruction, context, dim);
  return std::make_unique<SoftmaxStep>(instruction, context, context.value(instruction.reads[0]),
                                       n);
}

std::unique_ptr<Step> make_global_avg_pool2d(const Instruction& instruction, Context& context) {
  const Value x = context.value(instruction.reads[0]);
  expect(x.dtype == Dtype::kFloat && x.shape.size() == 4, "float_global_avg_pool2d",
         "expected x float32 [N, C, H, W], got " + shape_text(x));
  context.value(instruction.out) = {Dtype::kFloat, {x.shape[0], x.shape[1], 1, 1}, false};
  return std::make_unique<ChannelMeanStep>(instruction, context, x);
}

}  // namespace fastinfer::engine
