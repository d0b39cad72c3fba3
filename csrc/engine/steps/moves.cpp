// Steps that only move elements.
#include <cstring>

#include "../../cpu/work.h"
#include "../step.h"

namespace fastinfer::engine {
namespace {

// Each of `batch` matrices [rows, columns] to [columns, rows].
class TransposeStep : public Step {
 public:
  TransposeStep(const Instruction& instruction, Dtype dtype, int64_t batch, int64_t rows,
                int64_t columns)
      : from_(static_cast<size_t>(instruction.reads[0])),
        to_(static_cast<size_t>(instruction.out)),
        item_(dtype == Dtype::kFloat ? 4 : 1),
        batch_(batch),
        rows_(rows),
        columns_(columns) {}

  Work work() const override { return {batch_ * rows_ * columns_ * kMoveWork, batch_}; }
  void run(const Frame& frame, int thread, int threads) const override {
    const auto [n0, n1] = share_of(batch_, thread, threads);
    const int64_t size = rows_ * columns_ * item_;
    for (int64_t n = n0; n < n1; n++) {
      const uint8_t* from = frame[from_] + n * size;
      uint8_t* to = frame[to_] + n * size;
      if (rows_ == 1 || columns_ == 1) {
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
    for (int64_t c = 0; c < columns_; c++) {
      for (int64_t r = 0; r < rows_; r++) to[c * rows_ + r] = from[r * columns_ + c];
    }
  }

  size_t from_, to_;
  int64_t item_, batch_, rows_, columns_;
};

// Channels [first, first + width) of every pixel.
class SliceStep : public Step {
 public:
  SliceStep(const Instruction& instruction, int64_t pixels, int64_t channels, int64_t first,
            int64_t width)
      : from_(static_cast<size_t>(instruction.reads[0])),
        to_(static_cast<size_t>(instruction.out)),
        pixels_(pixels),
        channels_(channels),
        first_(first),
        width_(width) {}

  Work work() const override { return {pixels_ * width_ * kMoveWork, pixels_}; }
  void run(const Frame& frame, int thread, int threads) const override {
    const auto [p0, p1] = share_of(pixels_, thread, threads);
    const uint8_t* from = frame[from_] + p0 * channels_ + first_;
    uint8_t* to = frame[to_] + p0 * width_;
    for (int64_t p = p0; p < p1; p++, from += channels_, to += width_) {
      std::memcpy(to, from, static_cast<size_t>(width_));
    }
  }

 private:
  size_t from_, to_;
  int64_t pixels_, channels_, first_, width_;
};

// Channel i of group g of `groups` becomes channel i * groups + g.
class ShuffleStep : public Step {
 public:
  ShuffleStep(const Instruction& instruction, int64_t pixels, int64_t channels, int64_t groups)
      : from_(static_cast<size_t>(instruction.reads[0])),
        to_(static_cast<size_t>(instruction.out)),
        pixels_(pixels),
        channels_(channels),
        groups_(groups) {}

  Work work() const override { return {pixels_ * channels_ * kMoveWork, pixels_}; }
  void run(const Frame& frame, int thread, int threads) const override {
    const auto [p0, p1] = share_of(pixels_, thread, threads);
    const int64_t each = channels_ / groups_;
    const uint8_t* from = frame[from_] + p0 * channels_;
    uint8_t* to = frame[to_] + p0 * channels_;
    for (int64_t p = p0; p < p1; p++, from += channels_, to += channels_) {
      if (groups_ == 2) {  // the common one, and one the compiler makes unpack instructions of
        for (int64_t i = 0; i < each; i++) {
          to[2 * i] = from[i];
          to[2 * i + 1] = from[each + i];
        }
        continue;
      }
      for (int64_t g = 0; g < groups_; g++) {
        for (int64_t i = 0; i < each; i++) to[i * groups_ + g] = from[g * each + i];
      }
    }
  }

 private:
  size_t from_, to_;
  int64_t pixels_, channels_, groups_;
};

}  // namespace

std::unique_ptr<Step> make_slice(const Instruction& instruction, Context& context) {
  Operands operands("slice", instruction);
  const int64_t first = operands.integer(), last = operands.integer();
  Value x = image("slice", instruction, context);
  const int64_t channels = x.shape[1];
  expect(first >= 0 && first <= last && last <= channels, "slice",
         "expected 0 <= first <= last <= channels, got " + shape_text(x));
  const int64_t pixels = x.shape[0] * x.shape[2] * x.shape[3];
  x.shape[1] = last - first;
  context.value(instruction.out) = x;
  return std::make_unique<SliceStep>(instruction, pixels, channels, first, last - first);
}

std::unique_ptr<Step> make_channel_shuffle(const Instruction& instruction, Context& context) {
  const int64_t groups = Operands("channel_shuffle", instruction).integer();
  const Value x = image("channel_shuffle", instruction, context);
  expect(groups > 0 && x.shape[1] % groups == 0, "channel_shuffle",
         "expected groups that divide the channels of " + shape_text(x));
  context.value(instruction.out) = x;
  const int64_t pixels = x.shape[0] * x.shape[2] * x.shape[3];
  return std::make_unique<ShuffleStep>(instruction, pixels, x.shape[1], groups);
}

// [N, C, H, W] in NHWC memory to [N, C * H * W].
std::unique_ptr<Step> make_flatten(const Instruction& instruction, Context& context) {
  const Value x = context.value(instruction.reads[0]);
  expect(x.shape.size() >= 2, "flatten", "expected x with a batch and more, got " + shape_text(x));
  int64_t features = 1;
  for (size_t i = 1; i < x.shape.size(); i++) features *= x.shape[i];
  context.value(instruction.out) = {x.dtype, {x.shape[0], features}, false};
  const int64_t channels = x.shape.size() == 4 ? x.shape[1] : 1;
  const int64_t pixels = channels == 0 ? 0 : features / channels;
  return std::make_unique<TransposeStep>(instruction, x.dtype, x.shape[0], pixels, channels);
}

std::unique_ptr<Step> make_interleave(const Instruction& instruction, Context& context) {
  const Value x = context.value(instruction.reads[0]);
  context.value(instruction.out) = {x.dtype, x.shape, false};
  return std::make_unique<TransposeStep>(instruction, x.dtype, x.shape[0], x.shape[1],
                                         x.shape[2] * x.shape[3]);
}

}  // namespace fastinfer::engine
