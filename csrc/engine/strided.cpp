#include "strided.h"

namespace fastinfer::engine {
namespace {

View permuted(const Instruction& step, const Context& context) {
  Operands operands("permute", step);
  const auto dims = operands.integers(operands.integer());
  const Value& x = context.value(step.reads[0]);
  expect(dims.size() == x.shape.size(), "permute", "expected a dim for each of " + shape_text(x));
  const Sizes strides = strides_of(x);
  Value out{x.dtype, {}, false};
  for (const int64_t dim : dims) {
    const size_t i = dimension("permute", x, dim);
    out.shape.push_back(x.shape[i]);
    out.strides.push_back(strides[i]);
  }
  return {std::move(out), 0};
}

View slice_view(const Instruction& step, const Context& context) {
  const Value& x = context.value(step.reads[0]);
  const Indices indices = sliced(step, x);
  Value out{x.dtype, x.shape, false, strides_of(x)};
  const int64_t item = x.dtype == Dtype::kFloat ? 4 : 1;
  const int64_t first = indices.first * out.strides[indices.dim] * item;
  out.shape[indices.dim] = indices.count;
  out.strides[indices.dim] *= indices.step;
  return {std::move(out), indices.count == 0 ? 0 : first};
}

// Strides of x's elements under another shape: dimensions are cut and joined where they lie in rows.
std::optional<View> reshape_view(const Instruction& step, const Context& context) {
  const Value& x = context.value(step.reads[0]);
  Value out = reshaped(step, context);
  out.is_planar = false;
  out.strides.assign(out.shape.size(), 0);
  if (out.elements() == 0) return std::nullopt;
  const Sizes strides = strides_of(x);
  size_t to = 0;
  for (size_t from = 0; from < x.shape.size();) {
    if (x.shape[from] == 1) {
      from++;
      continue;
    }
    // As many of x's dimensions as lie in rows, and as many of the result's as they make.
    int64_t size = x.shape[from];
    size_t last = from;
    for (size_t next = last + 1; next < x.shape.size(); next++) {
      if (x.shape[next] == 1) continue;
      if (strides[last] != strides[next] * x.shape[next]) break;
      size *= x.shape[next];
      last = next;
    }
    int64_t step_now = size * strides[last];
    int64_t left = size;
    while (left > 1) {
      if (to == out.shape.size() || left % out.shape[to] != 0) return std::nullopt;
      left /= out.shape[to];
      step_now /= out.shape[to];
      out.strides[to++] = step_now;
    }
    from = last + 1;
  }
  return View{std::move(out), 0};
}

}  // namespace

size_t dimension(const char* step, const Value& x, int64_t dim) {
  expect(dim >= 0 && dim < static_cast<int64_t>(x.shape.size()), step,
         "expected a dim of " + shape_text(x) + ", got " + std::to_string(dim));
  return static_cast<size_t>(dim);
}

void simplify(Value& value) {
  if (value.strides.empty()) return;
  const auto is_said_by = [&](const Value& dense) {
    const Sizes strides = strides_of(dense);
    for (size_t i = 0; i < strides.size(); i++) {
      if (value.shape[i] != 1 && strides[i] != value.strides[i]) return false;
    }
    return true;
  };
  for (const bool is_planar : {false, true}) {
    const Value dense{value.dtype, value.shape, is_planar && value.shape.size() == 4};
    if (!is_said_by(dense)) continue;
    value = dense;
    return;
  }
}

bool is_packed(const Value& value) {
  std::vector<size_t> order;
  for (size_t i = 0; i < value.strides.size(); i++) {
    if (value.shape[i] != 1) order.push_back(i);
  }
  std::sort(order.begin(), order.end(),
            [&](size_t a, size_t b) { return value.strides[a] < value.strides[b]; });
  int64_t step = 1;
  for (const size_t i : order) {
    if (value.strides[i] != step) return false;
    step *= value.shape[i];
  }
  return true;
}

Value dense_like(const Value& x, Sizes shape) {
  const bool is_image = shape.size() == 4;
  const bool is_planar =
      x.strides.empty() ? x.is_planar : x.strides.size() != 4 || x.strides[1] != 1;
  return {x.dtype, std::move(shape), is_image && is_planar};
}

// Words: sizes, of which -1 is what is left and -2 - i the size of dimension i of the second value it reads, or else
// of x.
Value reshaped(const Instruction& step, const Context& context) {
  Operands operands("reshape", step);
  const auto sizes = operands.integers(operands.integer());
  const Value& x = context.value(step.reads[0]);
  const Value& like = context.value(step.reads.back());
  Value out{x.dtype, {}, sizes.size() == 4};
  int64_t open = -1;
  for (size_t i = 0; i < sizes.size(); i++) {
    const int64_t size =
        sizes[i] <= -2 ? like.shape[dimension("reshape", like, -2 - sizes[i])] : sizes[i];
    if (size < 0) open = static_cast<int64_t>(i);
    out.shape.push_back(size);
  }
  if (open >= 0) {
    // Of one sample where the batch stays, so that an empty one has a shape, too.
    const bool is_sample = sizes[0] == -2 && like.shape[0] == x.shape[0];
    int64_t known = 1, all = 1;
    for (size_t i = is_sample ? 1 : 0; i < x.shape.size(); i++) all *= x.shape[i];
    for (size_t i = is_sample ? 1 : 0; i < out.shape.size(); i++) {
      if (static_cast<int64_t>(i) != open) known *= out.shape[i];
    }
    out.shape[static_cast<size_t>(open)] = known == 0 ? 0 : all / known;
  }
  expect(out.elements() == x.elements(), "reshape",
         "expected as many elements as " + shape_text(x) + ", got " + shape_text(out));
  return out;
}

// Words: dim, start, end, step, as those of torch's slice.
Indices sliced(const Instruction& step, const Value& x) {
  Operands operands("strided_slice", step);
  const size_t dim = dimension("strided_slice", x, operands.integer());
  const int64_t size = x.shape[dim];
  const auto bounded = [&](int64_t at) {
    return std::clamp<int64_t>(at < 0 ? at + size : at, 0, size);
  };
  const int64_t first = bounded(operands.integer()), last = bounded(operands.integer());
  const int64_t by = operands.integer();
  expect(by > 0, "strided_slice", "expected a step of 1 and more, got " + std::to_string(by));
  return {dim, first, last <= first ? 0 : (last - first + by - 1) / by, by};
}

std::optional<View> view_of(const Instruction& step, const Context& context) {
  std::optional<View> view;
  if (step.kind == StepKind::kPermute) view = permuted(step, context);
  if (step.kind == StepKind::kStridedSlice) view = slice_view(step, context);
  if (step.kind == StepKind::kReshape) view = reshape_view(step, context);
  if (view) simplify(view->value);
  return view;
}

}  // namespace fastinfer::engine
