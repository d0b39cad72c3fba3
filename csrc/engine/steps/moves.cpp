// Steps that only move elements.
#include <cstring>

#include "../../cpu/work.h"
#include "../step.h"

namespace fastinfer::engine {
namespace {

// [N, C, H, W] in NHWC memory to [N, C * H * W]; a copy of bytes where an image is one pixel.
class FlattenStep : public Step {
 public:
  FlattenStep(const Instruction& instruction, const Value& x)
      : from_(static_cast<size_t>(instruction.reads[0])),
        to_(static_cast<size_t>(instruction.out)),
        item_(x.dtype == Dtype::kFloat ? 4 : 1),
        batch_(x.shape[0]),
        channels_(x.shape.size() == 4 ? x.shape[1] : 1),
        pixels_(batch_ * channels_ == 0 ? 0 : x.elements() / (batch_ * channels_)) {}

  int threads(int available) const override {
    return useful_threads(batch_ * channels_ * pixels_ * kMoveWork, batch_, available);
  }
  void run(const Frame& frame, int thread, int threads) const override {
    const auto [n0, n1] = share_of(batch_, thread, threads);
    const int64_t size = channels_ * pixels_ * item_;
    for (int64_t n = n0; n < n1; n++) {
      const uint8_t* from = frame[from_] + n * size;
      uint8_t* to = frame[to_] + n * size;
      if (pixels_ == 1 || channels_ == 1) {
        std::memcpy(to, from, static_cast<size_t>(size));
      } else if (item_ == 1) {
        transpose(from, to);
      } else {
        transpose(reinterpret_cast<const float*>(from), reinterpret_cast<float*>(to));
      }
    }
  }

 private:
  template <class T>
  void transpose(const T* from, T* to) const {
    for (int64_t c = 0; c < channels_; c++) {
      for (int64_t p = 0; p < pixels_; p++) to[c * pixels_ + p] = from[p * channels_ + c];
    }
  }

  size_t from_, to_;
  int64_t item_, batch_, channels_, pixels_;
};

}  // namespace

std::unique_ptr<Step> make_flatten(const Instruction& instruction, Context& context) {
  const Value x = context.value(instruction.reads[0]);
  expect(x.shape.size() >= 2 && !x.is_planar, "flatten",
         "expected x with a batch and more, got " + shape_text(x));
  int64_t features = 1;
  for (size_t i = 1; i < x.shape.size(); i++) features *= x.shape[i];
  context.value(instruction.out) = {x.dtype, {x.shape[0], features}, false};
  return std::make_unique<FlattenStep>(instruction, x);
}

}  // namespace fastinfer::engine
