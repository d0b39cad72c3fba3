// float_max_pool2d.
#include "../../cpu/pool_driver.h"
#include "../../cpu/scratch.h"
#include "../step.h"

namespace fastinfer::engine {
namespace {

constexpr const char* kStep = "float_max_pool2d";

// A thread takes rows of the result.
class MaxPoolStep : public Step {
 public:
  MaxPoolStep(const Instruction& instruction, const Context& context, const Value& x, PoolAxis h,
              PoolAxis w)
      : table_(context.table),
        from_(static_cast<size_t>(instruction.reads[0])),
        to_(static_cast<size_t>(instruction.out)),
        batch_(x.shape[0]),
        channels_(x.shape[1]),
        h_(h),
        w_(w) {}

  Work work() const override {
    const int64_t rows = batch_ * h_.out;
    return {rows * w_.out * channels_ * h_.kernel * w_.kernel * kMoveWork, rows};
  }
  void run(const Frame& frame, int thread, int threads) const override {
    const auto [begin, end] = share_of(batch_ * h_.out, thread, threads);
    if (begin == end || channels_ == 0) return;
    const int64_t most = h_.kernel * w_.kernel;
    auto** taps = reinterpret_cast<const float**>(
        scratch<MaxPoolStep>(most * static_cast<int64_t>(sizeof(const float*))));
    const auto* x = reinterpret_cast<const float*>(frame[from_]);
    auto* out = reinterpret_cast<float*>(frame[to_]);
    for (int64_t row = begin; row < end; row++) {
      const float* image = x + row / h_.out * h_.size * w_.size * channels_;
      for (int64_t column = 0; column < w_.out; column++) {
        const int count = gather(image, row % h_.out, column, taps);
        table_.floats.max({taps, count, out + (row * w_.out + column) * channels_, channels_});
      }
    }
  }

 private:
  // The pixels of a window that are in the image.
  int gather(const float* image, int64_t row, int64_t column, const float** taps) const {
    int count = 0;
    for (int64_t i = 0; i < h_.kernel; i++) {
      const int64_t y = row * h_.stride - h_.padding + i * h_.dilation;
      if (y < 0 || y >= h_.size) continue;
      for (int64_t j = 0; j < w_.kernel; j++) {
        const int64_t z = column * w_.stride - w_.padding + j * w_.dilation;
        if (z >= 0 && z < w_.size) taps[count++] = image + (y * w_.size + z) * channels_;
      }
    }
    return count;
  }

  const KernelTable& table_;
  const size_t from_, to_;
  const int64_t batch_, channels_;
  const PoolAxis h_, w_;
};

}  // namespace

std::unique_ptr<Step> make_float_max_pool2d(const Instruction& instruction, Context& context) {
  Operands operands(kStep, instruction);
  const auto kernel = operands.integers(2), stride = operands.integers(2);
  const auto padding = operands.integers(2), dilation = operands.integers(2);
  const bool ceil_mode = operands.integer() != 0;
  const Value x = context.value(instruction.reads[0]);
  expect(x.dtype == Dtype::kFloat && x.shape.size() == 4, kStep,
         "expected x float32 [N, C, H, W], got " + shape_text(x));
  const auto axis = [&](size_t i) {
    expect(kernel[i] > 0 && stride[i] > 0 && dilation[i] > 0 && padding[i] >= 0, kStep,
           "expected kernel, stride and dilation of 1 and more");
    return PoolAxis::of(x.shape[i + 2], kernel[i], stride[i], padding[i], dilation[i], ceil_mode);
  };
  const PoolAxis h = axis(0), w = axis(1);
  expect(h.out > 0 && w.out > 0, kStep, "expected windows that fit " + shape_text(x));
  context.value(instruction.out) = {Dtype::kFloat, {x.shape[0], x.shape[1], h.out, w.out}, false};
  return std::make_unique<MaxPoolStep>(instruction, context, x, h, w);
}

}  // namespace fastinfer::engine
