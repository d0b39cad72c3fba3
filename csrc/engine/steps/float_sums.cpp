// float_reduce, float_group_norm, float_matmul, float_attention.
#include "../../cpu/float_attention.h"
#include "../strided.h"

namespace fastinfer::engine {
namespace {

// make(frame) is the driver of a call.
template <class Make>
class DriverStep : public Step {
 public:
  DriverStep(Make make, Work work) : make_(std::move(make)), work_(work) {}

  Work work() const override { return work_; }
  void run(const Frame& frame, int thread, int threads) const override {
    if (work_.parts > 0) make_(frame).run_part(thread, threads);
  }

 private:
  const Make make_;
  const Work work_;
};

template <class Make>
std::unique_ptr<Step> driver_step(size_t values, Make make) {
  const Work work = make(Frame(values, nullptr)).work();
  return std::make_unique<DriverStep<Make>>(std::move(make), work);
}

const float* floats(const Frame& frame, int64_t value) {
  return reinterpret_cast<const float*>(frame[static_cast<size_t>(value)]);
}
float* result(const Frame& frame, const Instruction& instruction) {
  return reinterpret_cast<float*>(frame[static_cast<size_t>(instruction.out)]);
}

const Value& float_value(const char* step, const Context& context, int64_t index) {
  const Value& value = context.value(index);
  expect(value.dtype == Dtype::kFloat, step, "expected float32, got uint8 " + shape_text(value));
  return value;
}

MatrixSteps matrix_steps(const Value& value, bool repeats) {
  const Sizes strides = strides_of(value);
  const size_t rank = strides.size();
  MatrixSteps steps{{0, 0}, strides[rank - 2], strides[rank - 1]};
  for (size_t i = 0; i + 2 < rank && !repeats; i++) steps.batch[i + 4 - rank] = strides[i];
  return steps;
}

}  // namespace

std::unique_ptr<Step> make_float_reduce(const Instruction& instruction, Context& context) {
  constexpr const char* kStep = "float_reduce";
  Operands operands(kStep, instruction);
  const int64_t function = operands.integer();
  expect(function >= 0 && function < static_cast<int64_t>(ReduceFunction::kCount), kStep,
         "program: unknown function " + std::to_string(function));
  const auto dims = operands.integers(operands.integer());
  const Value x = float_value(kStep, context, instruction.reads[0]);
  std::vector<bool> is_reduced(x.shape.size());
  for (const int64_t dim : dims) {
    expect(dim > 0 && dim < static_cast<int64_t>(x.shape.size()), kStep,
           "expected dims but the batch's, got " + std::to_string(dim) + " of " + shape_text(x));
    is_reduced[static_cast<size_t>(dim)] = true;
  }
  const auto parts = reduced_parts(x.shape, is_reduced);
  expect(parts.has_value(), kStep,
         "expected dims that lie together in memory, got them apart in " + shape_text(x));
  const std::array<int64_t, 3> sizes = *parts;
  expect(sizes[1] > 0, kStep, "expected something to reduce, got " + shape_text(x));
  Value out{Dtype::kFloat, {}, false};
  for (size_t i = 0; i < x.shape.size(); i++) out.shape.push_back(is_reduced[i] ? 1 : x.shape[i]);
  context.value(instruction.out) = std::move(out);
  return driver_step(context.values.size(), [=, &table = context.table](const Frame& frame) {
    return ReduceDriver{table,    static_cast<ReduceFunction>(function),
                        floats(frame, instruction.reads[0]), result(frame, instruction),
                        sizes[0], sizes[1],
                        sizes[2]};
  });
}

std::unique_ptr<Step> make_float_group_norm(const Instruction& instruction, Context& context) {
  constexpr const char* kStep = "float_group_norm";
  Operands operands(kStep, instruction);
  const int64_t groups = operands.integer();
  const Value x = float_value(kStep, context, instruction.reads[0]);
  expect(x.shape.size() == 4 && groups > 0 && x.shape[1] % groups == 0, kStep,
         "expected x [N, C, H, W] and groups that divide C, got " + shape_text(x) + " and " +
             std::to_string(groups));
  const float* weight = float_parameter(kStep, operands, context, x.shape[1]);
  const float* bias = float_parameter(kStep, operands, context, x.shape[1]);
  const auto eps = static_cast<float>(operands.real());
  context.value(instruction.out) = {Dtype::kFloat, x.shape, false};
  return driver_step(context.values.size(), [=, &table = context.table](const Frame& frame) {
    return GroupNormDriver{table,
                           floats(frame, instruction.reads[0]),
                           result(frame, instruction),
                           x.shape[0],
                           x.shape[2] * x.shape[3],
                           x.shape[1],
                           groups,
                           weight,
                           bias,
                           eps};
  });
}

std::unique_ptr<Step> make_float_matmul(const Instruction& instruction, Context& context) {
  constexpr const char* kStep = "float_matmul";
  const Value a = float_value(kStep, context, instruction.reads[0]);
  const Value b = float_value(kStep, context, instruction.reads[1]);
  const size_t rank = a.shape.size();
  const auto wrong = [&] { return "got " + shape_text(a) + " and " + shape_text(b); };
  expect(rank >= 2 && b.shape.size() == rank, kStep, "expected matrices of one rank, " + wrong());
  expect(a.shape[rank - 1] == b.shape[rank - 2], kStep, "expected inner sizes equal, " + wrong());
  const auto batch_of = [&](const Value& value) {
    return Sizes(value.shape.begin(), value.shape.end() - 2);
  };
  const auto count = [](const Sizes& sizes) {
    return std::accumulate(sizes.begin(), sizes.end(), int64_t{1}, std::multiplies<>());
  };
  const Sizes a_batch = batch_of(a), b_batch = batch_of(b);
  const bool a_repeats = count(a_batch) == 1, b_repeats = count(b_batch) == 1;
  expect(a_batch == b_batch || a_repeats || b_repeats, kStep,
         "expected equal batches or one matrix, " + wrong());
  expect(rank <= 4, kStep, "expected at most 4 dimensions, " + wrong());
  Value out{Dtype::kFloat, a_repeats ? b_batch : a_batch, rank == 4};
  int64_t sizes[2] = {1, 1};
  std::copy_backward(out.shape.begin(), out.shape.end(), std::end(sizes));
  const int64_t rows = a.shape[rank - 2], k = a.shape[rank - 1], columns = b.shape[rank - 1];
  out.shape.insert(out.shape.end(), {rows, columns});
  MatrixSteps a_steps = matrix_steps(a, a_repeats), b_steps = matrix_steps(b, b_repeats);
  // Where b's rows would have to be brought together and a's columns lie so, the product is made on its side.
  const bool is_turned = b_steps.column != 1 && a_steps.row == 1;
  if (is_turned) {
    std::swap(a_steps.row, a_steps.column);
    std::swap(b_steps.row, b_steps.column);
    std::swap(a_steps, b_steps);
    out.is_planar = false;
    out.strides = row_major_strides(out.shape);
    out.strides[rank - 2] = 1;
    out.strides[rank - 1] = rows;
    simplify(out);
  }
  const size_t first = is_turned ? 1 : 0;
  const int64_t height = is_turned ? columns : rows, width = is_turned ? rows : columns;
  const MatrixSteps out_steps{{sizes[1] * rows * columns, rows * columns}, width, 1};
  context.value(instruction.out) = std::move(out);
  const int64_t outer = sizes[0], inner = sizes[1];
  return driver_step(context.values.size(), [=, &table = context.table](const Frame& frame) {
    return MatmulDriver{table,   floats(frame, instruction.reads[first]),
                        floats(frame, instruction.reads[1 - first]),
                        result(frame, instruction),
                        {outer, inner},
                        height,  k,       width,
                        a_steps, b_steps, out_steps};
  });
}

// Words: scale, whether it is causal, a mask that is a buffer or -1, its shape. Reads q, k, v and a mask that is a value.
std::unique_ptr<Step> make_float_attention(const Instruction& instruction, Context& context) {
  constexpr const char* kStep = "float_attention";
  Operands operands(kStep, instruction);
  const auto scale = static_cast<float>(operands.real());
  const bool is_causal = operands.integer() != 0;
  Value mask{Dtype::kFloat, {}, true};
  const float* constant = nullptr;
  const bool is_value = instruction.reads.size() > 3;
  if (is_value) {
    mask = float_value(kStep, context, instruction.reads[3]);
    operands.integers(2);
  } else if (operands.is_absent()) {
    operands.integers(2);
  } else {
    constant = float_constant(kStep, operands, context, mask.shape);
  }
  const Value q = float_value(kStep, context, instruction.reads[0]);
  const Value k = float_value(kStep, context, instruction.reads[1]);
  const Value v = float_value(kStep, context, instruction.reads[2]);
  const size_t rank = q.shape.size();
  const auto leads_as = [&](const Value& value, size_t count) {
    return value.shape.size() == rank &&
           std::equal(q.shape.begin(), q.shape.end() - static_cast<int64_t>(count),
                      value.shape.begin());
  };
  expect((rank == 3 || rank == 4) && leads_as(k, 2) && leads_as(v, 2) &&
             k.shape[rank - 1] == q.shape[rank - 1] && v.shape[rank - 2] == k.shape[rank - 2] &&
             k.shape[rank - 2] > 0,
         kStep, "expected q [..., T, D], k [..., S, D] and v [..., S, E] with some S, got " + shape_text(q) +
                    ", " + shape_text(k) + " and " + shape_text(v));
  int64_t sizes[2] = {1, 1};
  std::copy_backward(q.shape.begin(), q.shape.end() - 2, std::end(sizes));
  const int64_t queries = q.shape[rank - 2], keys = k.shape[rank - 2];
  const int64_t width = q.shape[rank - 1], out_width = v.shape[rank - 1];
  MaskSteps hidden{};
  if (is_value || constant != nullptr) {
    Sizes scores = q.shape;
    scores[rank - 1] = keys;
    const auto found = mask_steps(mask.shape, strides_of(mask), scores);
    expect(found.has_value(), kStep,
           "expected mask [..., T, S] like the scores of q " + shape_text(q) + " and k " + shape_text(k) +
               ", 1 for a size, or a part of the samples, got " + shape_text(mask));
    hidden = *found;
  }
  Value out{Dtype::kFloat, q.shape, false};
  out.shape[rank - 1] = out_width;
  // Heads lie side by side, as what follows joins them.
  const int64_t outer = sizes[0], heads = rank == 4 ? sizes[1] : 1;
  const int64_t pixel = heads * out_width;
  if (rank == 4) out.strides = {queries * pixel, out_width, pixel, 1};
  simplify(out);
  const MatrixSteps out_steps{{queries * pixel, rank == 4 ? out_width : queries * pixel}, pixel, 1};
  const MatrixSteps q_steps = matrix_steps(q, false), k_steps = matrix_steps(k, false),
                    v_steps = matrix_steps(v, false);
  context.value(instruction.out) = std::move(out);
  const int64_t inner = sizes[1];
  return driver_step(context.values.size(), [=, &table = context.table](const Frame& frame) {
    return AttentionDriver{table,
                           floats(frame, instruction.reads[0]),
                           floats(frame, instruction.reads[1]),
                           floats(frame, instruction.reads[2]),
                           result(frame, instruction),
                           {outer, inner},
                           queries,
                           keys,
                           width,
                           out_width,
                           scale,
                           q_steps,
                           k_steps,
                           v_steps,
                           out_steps,
                           is_value ? floats(frame, instruction.reads[3]) : constant,
                           hidden,
                           is_causal};
  });
}

}  // namespace fastinfer::engine
