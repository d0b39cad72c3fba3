// float_reduce, float_group_norm, float_matmul, float_attention, float_unary.
#include "../op_checks.h"
#include "conv_geometry.h"
#include "float_attention.h"
#include "ops.h"
#include "parallel.h"

namespace fastinfer {
namespace {

const float* floats(const Tensor& t) { return static_cast<const float*>(t.const_data_ptr()); }
float* result(Tensor& t) { return static_cast<float*>(t.mutable_data_ptr()); }

template <class Function>
struct Name {
  const char* name;
  Function function;
};

template <class Function, size_t kCount>
Function function_named(const char* op, const std::string& name,
                        const Name<Function> (&names)[kCount]) {
  std::string known;
  for (const auto& [each, function] : names) {
    if (name == each) return function;
    known += (known.empty() ? "" : ", ") + std::string(each);
  }
  STD_TORCH_CHECK(false, op, ": expected function one of ", known, ", got ", name);
  return {};
}

std::vector<bool> reduced_dims(const Tensor& x, const std::vector<int64_t>& dims) {
  std::vector<bool> is_reduced(static_cast<size_t>(x.dim()));
  for (const int64_t dim : dims) {
    STD_TORCH_CHECK(dim >= 0 && dim < x.dim(), "float_reduce: expected dims in 0..", x.dim() - 1,
                    ", got ", dim);
    is_reduced[static_cast<size_t>(dim)] = true;
  }
  return is_reduced;
}

}  // namespace

Tensor float_reduce_cpu(Tensor x, std::vector<int64_t> dims, std::string function) {
  constexpr const char* kOp = "float_reduce";
  static constexpr Name<ReduceFunction> kNames[] = {{"sum", ReduceFunction::kSum},
                                                    {"mean", ReduceFunction::kMean},
                                                    {"norm", ReduceFunction::kNorm}};
  const ReduceFunction wanted = function_named(kOp, function, kNames);
  check_dtype(kOp, "x", x, ScalarType::Float);
  const std::vector<bool> is_reduced = reduced_dims(x, dims);
  const bool is_image = x.dim() == 4;
  x = is_image ? as_nhwc(x) : as_contiguous(x);
  const std::vector<int64_t> shape = sizes_of(x);
  const auto parts = reduced_parts(shape, is_reduced);
  STD_TORCH_CHECK(parts.has_value(), kOp, ": expected dims that lie together in ",
                  is_image ? "NHWC" : "row-major", " memory, got them apart in ", shape_text(x));
  const auto [outer, n, inner] = *parts;
  STD_TORCH_CHECK(n > 0, kOp, ": expected something to reduce, got ", shape_text(x));
  std::vector<int64_t> kept;
  for (size_t i = 0; i < shape.size(); i++) kept.push_back(is_reduced[i] ? 1 : shape[i]);
  Tensor out = is_image ? empty_nhwc(kept, ScalarType::Float)
                        : empty_contiguous(kept, ScalarType::Float);
  if (out.numel() == 0) return out;
  run_driver(ReduceDriver{current_table(), wanted, floats(x), result(out), outer, n, inner});
  return out;
}

Tensor float_group_norm_cpu(Tensor x, int64_t groups, std::optional<Tensor> weight,
                            std::optional<Tensor> bias, double eps) {
  constexpr const char* kOp = "float_group_norm";
  check_dtype(kOp, "x", x, ScalarType::Float);
  STD_TORCH_CHECK(x.dim() == 4 && groups > 0 && x.sizes()[1] % groups == 0, kOp,
                  ": expected x [N, C, H, W] and groups that divide C, got ", shape_text(x),
                  " and ", groups);
  x = as_nhwc(x);
  const std::vector<int64_t> shape = sizes_of(x);
  const auto parameter = [&](const char* name, std::optional<Tensor>& t) -> const float* {
    if (!t.has_value()) return nullptr;
    check_vector(kOp, name, *t, ScalarType::Float, shape[1]);
    t = as_contiguous(*t);
    return floats(*t);
  };
  const float* w = parameter("weight", weight);
  const float* b = parameter("bias", bias);
  Tensor out = empty_nhwc(shape, ScalarType::Float);
  if (out.numel() == 0) return out;
  run_driver(GroupNormDriver{current_table(), floats(x), result(out), shape[0],
                             shape[2] * shape[3], shape[1], groups, w, b,
                             static_cast<float>(eps)});
  return out;
}

Tensor float_matmul_cpu(Tensor a, Tensor b) {
  constexpr const char* kOp = "float_matmul";
  check_dtype(kOp, "a", a, ScalarType::Float);
  check_dtype(kOp, "b", b, ScalarType::Float);
  a = as_contiguous(a);
  b = as_contiguous(b);
  std::vector<int64_t> a_batch = sizes_of(a), b_batch = sizes_of(b);
  const size_t rank = a_batch.size();
  bool is_right = rank >= 2 && b_batch.size() == rank && a_batch[rank - 1] == b_batch[rank - 2];
  int64_t sizes[3] = {0, 0, 0};  // rows, k, columns
  bool a_repeats = false, b_repeats = false;
  if (is_right) {
    sizes[0] = a_batch[rank - 2];
    sizes[1] = a_batch[rank - 1];
    sizes[2] = b_batch[rank - 1];
    a_batch.resize(rank - 2);
    b_batch.resize(rank - 2);
    const auto is_one = [](const std::vector<int64_t>& batch) {
      return std::all_of(batch.begin(), batch.end(), [](int64_t size) { return size == 1; });
    };
    a_repeats = is_one(a_batch);
    b_repeats = is_one(b_batch);
    is_right = a_batch == b_batch || a_repeats || b_repeats;
  }
  STD_TORCH_CHECK(is_right, kOp,
                  ": expected a [..., M, K] and b [..., K, N] with equal batches or one matrix, ",
                  "got ", shape_text(a), " and ", shape_text(b));
  std::vector<int64_t> shape = a_repeats ? b_batch : a_batch;
  shape.insert(shape.end(), {sizes[0], sizes[2]});
  Tensor out = empty_contiguous(shape, ScalarType::Float);
  if (out.numel() == 0) return out;
  const int64_t batch = out.numel() / (sizes[0] * sizes[2]);
  const auto steps = [&](bool repeats, int64_t rows, int64_t columns) {
    return MatrixSteps{{0, repeats ? 0 : rows * columns}, columns, 1};
  };
  run_driver(MatmulDriver{current_table(), floats(a), floats(b), result(out), {1, batch}, sizes[0],
                          sizes[1], sizes[2], steps(a_repeats, sizes[0], sizes[1]),
                          steps(b_repeats, sizes[1], sizes[2]), steps(false, sizes[0], sizes[2])});
  return out;
}

Tensor float_attention_cpu(Tensor q, Tensor k, Tensor v, double scale, std::optional<Tensor> mask,
                           bool is_causal) {
  constexpr const char* kOp = "float_attention";
  check_dtype(kOp, "q", q, ScalarType::Float);
  check_dtype(kOp, "k", k, ScalarType::Float);
  check_dtype(kOp, "v", v, ScalarType::Float);
  q = as_contiguous(q);
  k = as_contiguous(k);
  v = as_contiguous(v);
  const std::vector<int64_t> q_sizes = sizes_of(q), k_sizes = sizes_of(k), v_sizes = sizes_of(v);
  const size_t rank = q_sizes.size();
  const auto leads_as = [&](const std::vector<int64_t>& sizes) {
    return sizes.size() == rank && std::equal(q_sizes.begin(), q_sizes.end() - 2, sizes.begin());
  };
  STD_TORCH_CHECK((rank == 3 || rank == 4) && leads_as(k_sizes) && leads_as(v_sizes) &&
                      k_sizes[rank - 1] == q_sizes[rank - 1] &&
                      v_sizes[rank - 2] == k_sizes[rank - 2] && k_sizes[rank - 2] > 0,
                  kOp, ": expected q [..., T, D], k [..., S, D] and v [..., S, E] with some S, got ",
                  shape_text(q), ", ", shape_text(k), " and ", shape_text(v));
  std::vector<int64_t> scores = q_sizes;
  scores[rank - 1] = k_sizes[rank - 2];
  MaskSteps hidden{};
  if (mask) {
    check_dtype(kOp, "mask", *mask, ScalarType::Float);
    mask = as_contiguous(*mask);
    std::vector<int64_t> strides(static_cast<size_t>(mask->dim()));
    int64_t step = 1;
    for (size_t i = strides.size(); i-- > 0; step *= mask->sizes()[i]) strides[i] = step;
    const auto found = mask_steps(sizes_of(*mask), strides, scores);
    STD_TORCH_CHECK(found.has_value(), kOp,
                    ": expected mask [..., T, S] like the scores of q ", shape_text(q), " and k ",
                    shape_text(k), ", 1 for a size, or a part of the samples, got ", shape_text(*mask));
    hidden = *found;
  }
  std::vector<int64_t> shape = q_sizes;
  shape[rank - 1] = v_sizes[rank - 1];
  Tensor out = empty_contiguous(shape, ScalarType::Float);
  if (out.numel() == 0) return out;
  const int64_t queries = q_sizes[rank - 2], keys = k_sizes[rank - 2];
  const int64_t width = q_sizes[rank - 1], out_width = v_sizes[rank - 1];
  // As the mask has them apart.
  const int64_t outer = rank == 4 ? q_sizes[0] : 1, inner = q_sizes[rank - 3];
  const auto steps = [&](int64_t rows, int64_t columns) {
    return MatrixSteps{{inner * rows * columns, rows * columns}, columns, 1};
  };
  run_driver(AttentionDriver{current_table(), floats(q), floats(k), floats(v), result(out),
                             {outer, inner}, queries, keys, width,
                             out_width, static_cast<float>(scale), steps(queries, width),
                             steps(keys, width), steps(keys, out_width),
                             steps(queries, out_width),
                             mask ? floats(*mask) : nullptr, hidden, is_causal});
  return out;
}

Tensor float_unary_cpu(Tensor x, std::string function) {
  constexpr const char* kOp = "float_unary";
  static constexpr Name<UnaryFunction> kNames[] = {
      {"sqrt", UnaryFunction::kSqrt},       {"exp", UnaryFunction::kExp},
      {"sigmoid", UnaryFunction::kSigmoid}, {"tanh", UnaryFunction::kTanh},
      {"silu", UnaryFunction::kSilu},       {"gelu", UnaryFunction::kGelu},
      {"gelu_tanh", UnaryFunction::kGeluTanh}};
  const UnaryFunction wanted = function_named(kOp, function, kNames);
  check_dtype(kOp, "x", x, ScalarType::Float);
  const bool is_image = is_channels_last(x);
  x = is_image ? as_nhwc(x) : as_contiguous(x);
  Tensor out = is_image ? empty_nhwc(sizes_of(x), ScalarType::Float)
                        : empty_contiguous(sizes_of(x), ScalarType::Float);
  const int64_t count = x.numel();
  const float* from = floats(x);
  float* to = result(out);
  const KernelTable& table = current_table();
  split_range(count, threads_for(4 * count * kMoveWork, count), [&](int64_t begin, int64_t end) {
    table.floats.unary(wanted, {from + begin, to + begin, end - begin, 0, 0});
  });
  return out;
}

}  // namespace fastinfer
