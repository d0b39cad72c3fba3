// int8_region: a region of a model in one call of the engine.
#include <algorithm>
#include <stdexcept>
#include <utility>

#include "../engine/batch.h"
#include "bound_regions.h"
#include "conv_geometry.h"
#include "ops.h"

namespace fastinfer {
namespace {

constexpr const char* kOp = "int8_region";

// Memory that the engine takes: 4-D tensors NHWC, but float ones may stay NCHW.
Tensor as_input(const Tensor& t) {
  if (t.dim() == 4) {
    if (t.scalar_type() == ScalarType::Float && t.is_contiguous()) return t;
    return as_nhwc(t);
  }
  return as_contiguous(t);
}

engine::Value value_of(const Tensor& t) {
  STD_TORCH_CHECK(t.scalar_type() == ScalarType::Float || t.scalar_type() == ScalarType::Byte, kOp,
                  ": inputs: expected float32 or uint8, got ",
                  torch::headeronly::toString(t.scalar_type()));
  const bool is_float = t.scalar_type() == ScalarType::Float;
  const bool is_planar = is_float && t.dim() == 4 && t.is_contiguous() && !is_nhwc(t);
  return {is_float ? engine::Dtype::kFloat : engine::Dtype::kUint8, sizes_of(t), is_planar};
}

Tensor empty_output(const engine::Value& value) {
  const ScalarType type =
      value.dtype == engine::Dtype::kFloat ? ScalarType::Float : ScalarType::Byte;
  const bool is_nhwc = value.shape.size() == 4 && !value.is_planar;
  return is_nhwc ? empty_nhwc(value.shape, type) : empty_contiguous(value.shape, type);
}

std::vector<engine::Weight> weights_of(const std::vector<Tensor>& packed) {
  std::vector<engine::Weight> weights;
  for (const Tensor& t : packed) {
    const bool is_float = t.scalar_type() == ScalarType::Float;
    STD_TORCH_CHECK(is_float || t.scalar_type() == ScalarType::Byte, kOp,
                    ": packed: expected uint8 or float32, got ",
                    torch::headeronly::toString(t.scalar_type()));
    STD_TORCH_CHECK(t.is_contiguous(), kOp, ": packed: expected contiguous buffers");
    const auto* data = static_cast<const uint8_t*>(t.const_data_ptr());
    weights.push_back(engine::weight_at(data, t.numel() * (is_float ? 4 : 1)));
  }
  return weights;
}

// What weights_of(region.packed) gives. Between two calls of a large region all it reads has left the
// caches, so for tensors that lie where they did it reads no more than where they lie.
std::vector<engine::Weight> weights_now(const BoundRegion& region) {
  std::vector<engine::Weight> weights = region.weights;
  for (const engine::Weight& weight : weights) __builtin_prefetch(weight.data);
  for (size_t i = 0; i < weights.size(); i++) {
    if (region.packed[i].const_data_ptr() != weights[i].data) return weights_of(region.packed);
  }
  for (engine::Weight& weight : weights) weight = engine::weight_at(weight.data, weight.bytes);
  return weights;
}

// How many the call that begins may use. Parked workers take some 50 us to wake: they do while the call looks at
// its weights and makes its outputs.
int threads_of_call() {
  const auto threads = static_cast<int>(torch::stable::get_num_threads());
  engine::wake_workers(threads);
  return threads;
}

// is_of_one: an op whose answer is one tensor called it.
std::vector<Tensor> run_region(std::vector<Tensor> inputs, std::vector<engine::Weight> weights,
                               const std::string& program, int threads, bool is_of_one) {
  for (Tensor& t : inputs) t = as_input(t);
  engine::PlanKey key{current_isa(), std::move(weights), {}};
  for (const Tensor& t : inputs) key.inputs.push_back(value_of(t));
  const auto plan = engine::RegionCache::instance().plan(program, key);
  if (is_of_one && plan->outputs() != 1) {
    throw std::invalid_argument("int8_region_call_one: region: expected one with 1 output, got " +
                                std::to_string(plan->outputs()) + "; use int8_region_call");
  }
  std::vector<const void*> from;
  for (const Tensor& t : inputs) from.push_back(t.const_data_ptr());
  std::vector<Tensor> outputs;
  std::vector<void*> to;
  for (size_t i = 0; i < plan->outputs(); i++) {
    outputs.push_back(empty_output(plan->output(i)));
    to.push_back(outputs.back().mutable_data_ptr());
  }
  engine::run_batch(program, key, *plan, from, to, threads);
  return outputs;
}

std::vector<Tensor> run_bound(std::vector<Tensor> inputs, int64_t region, bool is_of_one) {
  try {
    const int threads = threads_of_call();
    const auto bound = bound_region(region);
    return run_region(std::move(inputs), weights_now(*bound), bound->program, threads, is_of_one);
  } catch (const std::invalid_argument& error) {
    STD_TORCH_CHECK(false, error.what());
  }
  return {};
}

}  // namespace

std::vector<Tensor> int8_region_cpu(std::vector<Tensor> inputs, std::vector<Tensor> packed,
                                    std::string program) {
  try {
    const int threads = threads_of_call();
    return run_region(std::move(inputs), weights_of(packed), program, threads, /*is_of_one=*/false);
  } catch (const std::invalid_argument& error) {
    STD_TORCH_CHECK(false, error.what());
  }
  return {};
}

int64_t int8_region_bind_cpu(std::vector<Tensor> packed, std::string program) {
  std::vector<engine::Weight> weights = weights_of(packed);
  return bind_region({std::move(packed), std::move(program), std::move(weights)});
}

std::vector<Tensor> int8_region_call_cpu(std::vector<Tensor> inputs, int64_t region) {
  return run_bound(std::move(inputs), region, /*is_of_one=*/false);
}

Tensor int8_region_call_one_cpu(Tensor input, int64_t region) {
  std::vector<Tensor> inputs;
  inputs.push_back(std::move(input));
  return run_bound(std::move(inputs), region, /*is_of_one=*/true)[0];
}

}  // namespace fastinfer
