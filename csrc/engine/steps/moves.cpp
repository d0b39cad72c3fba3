// Steps that only move elements.
#include <algorithm>
#include <cstring>

#include "../../cpu/copy_pixels.h"
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
  SliceStep(const Instruction& instruction, const Context& context, int64_t pixels, int64_t first,
            int64_t width)
      : from_(static_cast<size_t>(instruction.reads[0])),
        to_(static_cast<size_t>(instruction.out)),
        from_step_(context.pixel_step(instruction.reads[0])),
        to_step_(context.pixel_step(instruction.out)),
        pixels_(pixels),
        first_(first),
        width_(width) {}

  Work work() const override { return {pixels_ * width_ * kMoveWork, pixels_}; }
  void run(const Frame& frame, int thread, int threads) const override {
    const auto [p0, p1] = share_of(pixels_, thread, threads);
    copy_pixels(frame[to_] + p0 * to_step_, to_step_, frame[from_] + p0 * from_step_ + first_,
                from_step_, width_, p1 - p0);
  }

 private:
  size_t from_, to_;
  int64_t from_step_, to_step_, pixels_, first_, width_;
};

// Channel i of group g of `groups` becomes channel i * groups + g; of these, [first, first + width).
class ShuffleStep : public Step {
 public:
  ShuffleStep(const Instruction& instruction, const Context& context, int64_t groups, int64_t first,
              int64_t width)
      : from_(static_cast<size_t>(instruction.reads[0])),
        to_(static_cast<size_t>(instruction.out)),
        from_step_(context.pixel_step(instruction.reads[0])),
        to_step_(context.pixel_step(instruction.out)),
        groups_(groups),
        first_(first),
        width_(width) {
    const Value& x = context.value(instruction.reads[0]);
    pixels_ = x.shape[0] * x.shape[2] * x.shape[3];
    each_ = x.shape[1] / groups;
  }

  Work work() const override { return {pixels_ * width_ * kMoveWork, pixels_}; }
  void run(const Frame& frame, int thread, int threads) const override {
    const auto [p0, p1] = share_of(pixels_, thread, threads);
    const uint8_t* from = frame[from_] + p0 * from_step_;
    uint8_t* to = frame[to_] + p0 * to_step_;
    // Copies: a store of bytes may change anything in memory, in the compiler's eyes.
    const int64_t groups = groups_, each = each_, first = first_, width = width_;
    const bool is_pairs = groups == 2 && first % 2 == 0 && width % 2 == 0;
    for (int64_t p = p0; p < p1; p++, from += from_step_, to += to_step_) {
      if (is_pairs) {  // the common one, and one the compiler makes unpack instructions of
        const uint8_t *even = from + first / 2, *odd = even + each;
        for (int64_t i = 0; i < width / 2; i++) {
          to[2 * i] = even[i];
          to[2 * i + 1] = odd[i];
        }
        continue;
      }
      for (int64_t g = 0; g < groups; g++) {
        // The first channel of group g that the result holds.
        int64_t i = (first - g + groups - 1) / groups;
        for (int64_t at = i * groups + g - first; at < width; at += groups, i++) {
          to[at] = from[g * each + i];
        }
      }
    }
  }

 private:
  size_t from_, to_;
  int64_t from_step_, to_step_, pixels_, groups_, each_, first_, width_;
};

// The channels [first, last) that a slice takes of x.
struct Channels {
  int64_t first, last;
};

Channels read_channels(Operands& operands, const Value& x) {
  const int64_t first = operands.integer(), last = operands.integer();
  expect(first >= 0 && first <= last && last <= x.shape[1], "slice",
         "expected 0 <= first <= last <= channels, got " + shape_text(x));
  return {first, last};
}

int64_t read_groups(Operands& operands, const Value& x) {
  const int64_t groups = operands.integer();
  expect(groups > 0 && x.shape[1] % groups == 0, "channel_shuffle",
         "expected groups that divide the channels of " + shape_text(x));
  return groups;
}

}  // namespace

std::unique_ptr<Step> make_slice(const Instruction& instruction, Context& context) {
  Operands operands("slice", instruction);
  Value x = image("slice", instruction, context);
  const auto [first, last] = read_channels(operands, x);
  const int64_t pixels = x.shape[0] * x.shape[2] * x.shape[3];
  x.shape[1] = last - first;
  context.value(instruction.out) = x;
  return std::make_unique<SliceStep>(instruction, context, pixels, first, last - first);
}

std::unique_ptr<Step> make_channel_shuffle(const Instruction& instruction, Context& context) {
  Operands operands("channel_shuffle", instruction);
  const Value x = image("channel_shuffle", instruction, context);
  const int64_t groups = read_groups(operands, x);
  context.value(instruction.out) = x;
  return std::make_unique<ShuffleStep>(instruction, context, groups, 0, x.shape[1]);
}

// A channel_shuffle's operands, then a slice's.
std::unique_ptr<Step> make_shuffled_slice(const Instruction& instruction, Context& context) {
  Operands operands("channel_shuffle", instruction);
  Value x = image("channel_shuffle", instruction, context);
  const int64_t groups = read_groups(operands, x);
  const auto [first, last] = read_channels(operands, x);
  x.shape[1] = last - first;
  context.value(instruction.out) = x;
  return std::make_unique<ShuffleStep>(instruction, context, groups, first, last - first);
}

// To [N, C * H * W].
std::unique_ptr<Step> make_flatten(const Instruction& instruction, Context& context) {
  const Value x = context.value(instruction.reads[0]);
  expect(x.shape.size() >= 2, "flatten", "expected x with a batch and more, got " + shape_text(x));
  int64_t features = 1;
  for (size_t i = 1; i < x.shape.size(); i++) features *= x.shape[i];
  context.value(instruction.out) = {x.dtype, {x.shape[0], features}, false};
  const int64_t channels = x.shape.size() == 4 && !x.is_planar ? x.shape[1] : 1;
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
