// reshape, roll, pad, pixel_shuffle, join, copy: steps that put elements elsewhere, of floats and of codes, whatever
// the layout. permute, strided_slice and most reshapes move nothing: see strided.h.
#include <cstring>

#include "../strided.h"

namespace fastinfer::engine {
namespace {

// Elements of one operand, or one number, that become elements of the result.
struct Part {
  Nest<1> nest;
  int64_t to, from;  // offsets, in elements
  int64_t source;    // index of what the step reads; kFill: a number
};
constexpr int64_t kFill = -1;

class CopyStep : public Step {
 public:
  CopyStep(const Instruction& instruction, Dtype dtype, std::vector<Part> parts, float fill = 0)
      : to_(static_cast<size_t>(instruction.out)),
        is_float_(dtype == Dtype::kFloat),
        parts_(std::move(parts)),
        fill_(fill) {
    for (const int64_t value : instruction.reads) reads_.push_back(static_cast<size_t>(value));
    for (const Part& part : parts_) elements_ += part.nest.elements();
  }

  Work work() const override { return {elements_ * kMoveWork, elements_}; }
  void run(const Frame& frame, int thread, int threads) const override {
    if (is_float_) {
      copy<float>(frame, fill_, thread, threads);
    } else {
      copy<uint8_t>(frame, static_cast<uint8_t>(fill_), thread, threads);
    }
  }

 private:
  static constexpr int64_t kUnit = 64;

  template <class T>
  void copy(const Frame& frame, T fill, int thread, int threads) const {
    auto* const result = reinterpret_cast<T*>(frame[to_]);
    for (const Part& part : parts_) {
      if (part.source != kFill && part.nest.is_transposed()) {
        transpose(frame, part, result, thread, threads);
        continue;
      }
      const auto [begin, end] = share_of(part.nest.elements(), kUnit, thread, threads);
      if (begin == end) continue;
      T* const to = result + part.to;
      const bool is_fill = part.source == kFill;
      const T* const from =
          is_fill ? &fill
                  : reinterpret_cast<const T*>(frame[reads_[static_cast<size_t>(part.source)]]) +
                        part.from;
      const auto& steps = part.nest.steps();
      part.nest.each_run(begin, end, [&](const auto& at, int64_t n) {
        copy_run(to + at[0], steps[0], from + (is_fill ? 0 : at[1]), is_fill ? 0 : steps[1], n);
      });
    }
  }

  // Some rows at once, so that each line of cache that is read is read for all of them.
  template <class T>
  void transpose(const Frame& frame, const Part& part, T* result, int thread, int threads) const {
    const auto [begin, end] = share_of(part.nest.blocks(), thread, threads);
    const T* const source =
        reinterpret_cast<const T*>(frame[reads_[static_cast<size_t>(part.source)]]) + part.from;
    const int64_t row_step = part.nest.row_steps()[0], to_step = part.nest.steps()[0];
    const int64_t from_step = part.nest.steps()[1], n = part.nest.row();
    part.nest.each_block(begin, end, [&](const auto& at, int64_t rows) {
      T* const to = result + part.to + at[0];
      const T* const from = source + at[1];
      for (int64_t first = 0; first < n; first += kUnit) {
        const int64_t last = std::min(n, first + kUnit);
        for (int64_t r = 0; r < rows; r++) {
          for (int64_t i = first; i < last; i++) {
            to[r * row_step + i * to_step] = from[r + i * from_step];
          }
        }
      }
    });
  }

  template <class T>
  static void copy_run(T* to, int64_t to_step, const T* from, int64_t from_step, int64_t n) {
    if (to_step == 1 && from_step == 1) {
      std::memcpy(to, from, static_cast<size_t>(n) * sizeof(T));
    } else if (to_step == 1 && from_step == 0) {
      std::fill_n(to, n, *from);
    } else {
      for (int64_t i = 0; i < n; i++) to[i * to_step] = from[i * from_step];
    }
  }

  const size_t to_;
  const bool is_float_;
  const std::vector<Part> parts_;
  const float fill_;
  std::vector<size_t> reads_;
  int64_t elements_ = 0;
};

// Neighbouring indices of one dimension of a result, and where they come from: first, first + step, ...
struct Piece {
  int64_t to, size, first, step;
  bool is_fill = false;
};
using Pieces = std::vector<Piece>;  // of a dimension, in order

// A result whose dimensions are made of pieces of the dimensions of x, in the layout nearest to that of x.
std::unique_ptr<Step> piecewise(const Instruction& instruction, Context& context,
                                const std::vector<Pieces>& pieces, float fill = 0) {
  const Value x = context.value(instruction.reads[0]);
  Sizes shape(pieces.size(), 0);
  for (size_t i = 0; i < pieces.size(); i++) {
    for (const Piece& piece : pieces[i]) shape[i] += piece.size;
  }
  Value out = dense_like(x, std::move(shape));
  const Sizes to_strides = strides_of(out), from_strides = strides_of(x);
  std::vector<Part> parts;
  std::vector<size_t> at(pieces.size());  // a piece of each dimension
  while (true) {
    Sizes sizes, steps;
    int64_t to = 0, from = 0;
    bool is_fill = false;
    for (size_t i = 0; i < pieces.size(); i++) {
      const Piece& piece = pieces[i][at[i]];
      sizes.push_back(piece.size);
      steps.push_back(piece.step * from_strides[i]);
      to += piece.to * to_strides[i];
      from += piece.first * from_strides[i];
      is_fill |= piece.is_fill;
    }
    parts.push_back({Nest<1>(sizes, {to_strides, steps}), to, is_fill ? 0 : from,
                     is_fill ? kFill : 0});
    size_t i = 0;
    for (; i < at.size() && ++at[i] == pieces[i].size(); i++) at[i] = 0;
    if (i == at.size()) break;
  }
  context.value(instruction.out) = std::move(out);
  return std::make_unique<CopyStep>(instruction, x.dtype, std::move(parts), fill);
}

std::vector<Pieces> whole(const Value& x) {
  std::vector<Pieces> pieces;
  for (const int64_t size : x.shape) pieces.push_back({{0, size, 0, 1}});
  return pieces;
}

// The whole of x, in the order of its elements that `sizes` and `from` say, as a dense result.
std::unique_ptr<Step> copied(const Instruction& instruction, Context& context, Dtype dtype,
                             Value out, const Sizes& sizes, const Sizes& to, const Sizes& from) {
  std::vector<Part> parts;
  parts.push_back({Nest<1>(sizes, {to, from}), 0, 0, 0});
  context.value(instruction.out) = std::move(out);
  return std::make_unique<CopyStep>(instruction, dtype, std::move(parts));
}

std::unique_ptr<Step> copied_view(const Instruction& instruction, Context& context) {
  const View view = view_of(instruction, context).value();
  Value out = dense_like(view.value, view.value.shape);
  const Sizes to = strides_of(out), sizes = out.shape;
  std::vector<Part> parts;
  const int64_t item = out.dtype == Dtype::kFloat ? 4 : 1;
  parts.push_back({Nest<1>(sizes, {to, strides_of(view.value)}), 0, view.first / item, 0});
  const Dtype dtype = out.dtype;
  context.value(instruction.out) = std::move(out);
  return std::make_unique<CopyStep>(instruction, dtype, std::move(parts));
}

enum class PadMode : int64_t { kConstant, kReflect, kReplicate, kCircular };

// A dimension of `size` with so many more before and behind; negative ones cut off.
Pieces padded(int64_t size, int64_t before, int64_t behind, PadMode mode) {
  const int64_t first = std::max<int64_t>(0, -before), last = size - std::max<int64_t>(0, -behind);
  const int64_t most = mode == PadMode::kReflect ? size - 1 : size;
  const bool is_free = mode == PadMode::kConstant || (mode == PadMode::kReplicate && size > 0);
  expect(last >= first && (is_free || std::max(before, behind) <= most), "pad",
         "expected no more than a dimension of " + std::to_string(size) + " has");
  before = std::max<int64_t>(before, 0);
  behind = std::max<int64_t>(behind, 0);
  const int64_t middle = last - first;
  Pieces pieces;
  const auto add = [&](int64_t to, int64_t n, int64_t from, int64_t step, bool is_fill = false) {
    if (n > 0) pieces.push_back({to, n, from, step, is_fill});
  };
  switch (mode) {
    case PadMode::kConstant:
      add(0, before, 0, 0, true);
      add(before + middle, behind, 0, 0, true);
      break;
    case PadMode::kReflect:
      add(0, before, before, -1);
      add(before + middle, behind, size - 2, -1);
      break;
    case PadMode::kReplicate:
      add(0, before, 0, 0);
      add(before + middle, behind, size - 1, 0);
      break;
    case PadMode::kCircular:
      add(0, before, size - before, 1);
      add(before + middle, behind, 0, 1);
      break;
  }
  pieces.push_back({before, middle, first, 1});
  return pieces;
}

}  // namespace

// A view of x; where a plan makes it a step, dense in its layout.
std::unique_ptr<Step> make_permute(const Instruction& instruction, Context& context) {
  return copied_view(instruction, context);
}
std::unique_ptr<Step> make_strided_slice(const Instruction& instruction, Context& context) {
  return copied_view(instruction, context);
}

std::unique_ptr<Step> make_reshape(const Instruction& instruction, Context& context) {
  const Value x = context.value(instruction.reads[0]);
  return copied(instruction, context, x.dtype, reshaped(instruction, context), x.shape,
                row_major_strides(x.shape), strides_of(x));
}

// x in rows: of images in planes.
std::unique_ptr<Step> make_contiguous(const Instruction& instruction, Context& context) {
  const Value x = context.value(instruction.reads[0]);
  Value out{x.dtype, x.shape, x.shape.size() == 4};
  const Sizes to = strides_of(out);
  return copied(instruction, context, x.dtype, std::move(out), x.shape, to, strides_of(x));
}

// Words: whether images are to lie in planes.
std::unique_ptr<Step> make_copy(const Instruction& instruction, Context& context) {
  const bool is_planar = Operands("copy", instruction).integer() != 0;
  const Value x = context.value(instruction.reads[0]);
  Value out{x.dtype, x.shape, is_planar && x.shape.size() == 4};
  const Sizes to = strides_of(out);
  return copied(instruction, context, x.dtype, std::move(out), x.shape, to, strides_of(x));
}

std::unique_ptr<Step> make_roll(const Instruction& instruction, Context& context) {
  Operands operands("roll", instruction);
  const auto shifts = operands.integers(operands.integer());
  const auto dims = operands.integers(operands.integer());
  const Value x = context.value(instruction.reads[0]);
  expect(shifts.size() == dims.size(), "roll", "expected a shift for each dim");
  std::vector<Pieces> pieces = whole(x);
  for (size_t i = 0; i < dims.size(); i++) {
    const size_t dim = dimension("roll", x, dims[i]);
    const int64_t size = x.shape[dim];
    const int64_t shift = size == 0 ? 0 : (shifts[i] % size + size) % size;
    if (shift != 0) pieces[dim] = {{0, shift, size - shift, 1}, {shift, size - shift, 0, 1}};
  }
  return piecewise(instruction, context, pieces);
}

// Words: before and behind, of the last dimension first; a PadMode; what a constant pad holds.
std::unique_ptr<Step> make_pad(const Instruction& instruction, Context& context) {
  Operands operands("pad", instruction);
  const auto amounts = operands.integers(operands.integer());
  const int64_t mode = operands.integer();
  const auto fill = static_cast<float>(operands.real());
  const Value x = context.value(instruction.reads[0]);
  const size_t rank = x.shape.size();
  expect(amounts.size() % 2 == 0 && amounts.size() / 2 <= rank && mode >= 0 &&
             mode <= static_cast<int64_t>(PadMode::kCircular),
         "pad", "expected two amounts for each of some dims and a mode");
  std::vector<Pieces> pieces = whole(x);
  for (size_t i = 0; i < amounts.size() / 2; i++) {
    const size_t dim = rank - 1 - i;
    pieces[dim] = padded(x.shape[dim], amounts[2 * i], amounts[2 * i + 1],
                         static_cast<PadMode>(mode));
  }
  return piecewise(instruction, context, pieces, fill);
}

// Words: factor; of a negative one the reverse is made.
std::unique_ptr<Step> make_pixel_shuffle(const Instruction& instruction, Context& context) {
  constexpr const char* kStep = "pixel_shuffle";
  const int64_t factor = Operands(kStep, instruction).integer(), r = std::abs(factor);
  const Value x = context.value(instruction.reads[0]);
  expect(x.shape.size() == 4 && r > 0, kStep, "expected x [N, C, H, W], got " + shape_text(x));
  // wide: the one with more pixels, whose H and W are h r and w r; deep: the one with c r r channels.
  const bool widens = factor > 0;
  const int64_t c = widens ? x.shape[1] / (r * r) : x.shape[1];
  const int64_t h = widens ? x.shape[2] : x.shape[2] / r, w = widens ? x.shape[3] : x.shape[3] / r;
  Value out = dense_like(x, widens ? Sizes{x.shape[0], c, h * r, w * r}
                                   : Sizes{x.shape[0], c * r * r, h, w});
  expect(out.elements() == x.elements(), kStep,
         "expected sizes that " + std::to_string(r) + " divides, got " + shape_text(x));
  const Sizes wide = strides_of(widens ? out : x), deep = strides_of(widens ? x : out);
  const Sizes sizes = {x.shape[0], c, r, r, h, w};
  const Sizes wide_steps = {wide[0], wide[1], wide[2], wide[3], wide[2] * r, wide[3] * r};
  const Sizes deep_steps = {deep[0], deep[1] * r * r, deep[1] * r, deep[1], deep[2], deep[3]};
  return copied(instruction, context, x.dtype, std::move(out), sizes,
                widens ? wide_steps : deep_steps, widens ? deep_steps : wide_steps);
}

// Words: dim.
std::unique_ptr<Step> make_join(const Instruction& instruction, Context& context) {
  const Value first = context.value(instruction.reads[0]);
  const size_t dim = dimension("join", first, Operands("join", instruction).integer());
  Value out = dense_like(first, first.shape);
  out.shape[dim] = 0;
  for (const int64_t value : instruction.reads) {
    Value part = context.value(value);
    out.shape[dim] += part.shape.size() == out.shape.size() ? part.shape[dim] : 0;
    part.shape.resize(out.shape.size());
    part.shape[dim] = first.shape[dim];
    expect(part.shape == first.shape && part.dtype == first.dtype, "join",
           "expected values equal but in dim " + std::to_string(dim) + ", got " +
               shape_text(first) + " and " + shape_text(context.value(value)));
  }
  const Sizes to = strides_of(out);
  std::vector<Part> parts;
  int64_t at = 0;
  for (size_t i = 0; i < instruction.reads.size(); i++) {
    const Value& part = context.value(instruction.reads[i]);
    parts.push_back({Nest<1>(part.shape, {to, strides_of(part)}), at, 0, static_cast<int64_t>(i)});
    at += part.shape[dim] * to[dim];
  }
  context.value(instruction.out) = std::move(out);
  return std::make_unique<CopyStep>(instruction, first.dtype, std::move(parts));
}

}  // namespace fastinfer::engine
