// int8_region: a region of a model in one call of the engine.
#include <algorithm>
#include <stdexcept>

#include "../engine/batch.h"
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
  return value.shape.size() == 4 ? empty_nhwc(value.shape, type)
                                 : empty_contiguous(value.shape, type);
}

engine::PlanKey key_of(const std::vector<Tensor>& inputs, const std::vector<Tensor>& packed) {
  engine::PlanKey key{current_isa(), {}, {}};
  for (const Tensor& t : packed) {
    const bool is_float = t.scalar_type() == ScalarType::Float;
    STD_TORCH_CHECK(is_float || t.scalar_type() == ScalarType::Byte, kOp,
                    ": packed: expected uint8 or float32, got ",
                    torch::headeronly::toString(t.scalar_type()));
    STD_TORCH_CHECK(t.is_contiguous(), kOp, ": packed: expected contiguous buffers");
    const auto* data = static_cast<const uint8_t*>(t.const_data_ptr());
    key.weights.push_back(engine::weight_at(data, t.numel() * (is_float ? 4 : 1)));
  }
  for (const Tensor& t : inputs) key.inputs.push_back(value_of(t));
  return key;
}

}  // namespace

std::vector<Tensor> int8_region_cpu(std::vector<Tensor> inputs, std::vector<Tensor> packed,
                                    std::string program) {
  try {
    for (Tensor& t : inputs) t = as_input(t);
    const engine::PlanKey key = key_of(inputs, packed);
    const auto plan = engine::RegionCache::instance().plan(program, key);
    std::vector<const void*> from;
    for (const Tensor& t : inputs) from.push_back(t.const_data_ptr());
    std::vector<Tensor> outputs;
    std::vector<void*> to;
    for (size_t i = 0; i < plan->outputs(); i++) {
      outputs.push_back(empty_output(plan->output(i)));
      to.push_back(outputs.back().mutable_data_ptr());
    }
    const auto threads = static_cast<int>(torch::stable::get_num_threads());
    engine::run_batch(program, key, *plan, from, to, threads);
    return outputs;
  } catch (const std::invalid_argument& error) {
    STD_TORCH_CHECK(false, error.what());
  }
  return {};
}

}  // namespace fastinfer
