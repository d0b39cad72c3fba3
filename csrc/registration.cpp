// The CPU kernels of the ops whose schemas fastinfer/ops/catalog.py defines.
#include <torch/csrc/stable/library.h>

#include "cpu/ops.h"

STABLE_TORCH_LIBRARY_IMPL(fastinfer, CPU, m) {
  m.impl("quantize", TORCH_BOX(&fastinfer::quantize_cpu));
  m.impl("dequantize", TORCH_BOX(&fastinfer::dequantize_cpu));
  m.impl("quantize_dynamic", TORCH_BOX(&fastinfer::quantize_dynamic_cpu));
  m.impl("int8_prepack", TORCH_BOX(&fastinfer::int8_prepack_cpu));
  m.impl("int8_linear", TORCH_BOX(&fastinfer::int8_linear_cpu));
  m.impl("int8_linear_dynamic", TORCH_BOX(&fastinfer::int8_linear_dynamic_cpu));
  m.impl("int8_conv2d", TORCH_BOX(&fastinfer::int8_conv2d_cpu));
  m.impl("int8_depthwise_conv2d", TORCH_BOX(&fastinfer::int8_depthwise_conv2d_cpu));
  m.impl("int8_conv2d_dynamic", TORCH_BOX(&fastinfer::int8_conv2d_dynamic_cpu));
  m.impl("int8_region", TORCH_BOX(&fastinfer::int8_region_cpu));
  m.impl("int8_region_call", TORCH_BOX(&fastinfer::int8_region_call_cpu));
  m.impl("int8_region_call_one", TORCH_BOX(&fastinfer::int8_region_call_one_cpu));
  m.impl("int8_lookup", TORCH_BOX(&fastinfer::int8_lookup_cpu));
  m.impl("int8_add", TORCH_BOX(&fastinfer::int8_add_cpu));
  m.impl("int8_mul", TORCH_BOX(&fastinfer::int8_mul_cpu));
  m.impl("int8_cat", TORCH_BOX(&fastinfer::int8_cat_cpu));
  m.impl("int8_max_pool2d", TORCH_BOX(&fastinfer::int8_max_pool2d_cpu));
  m.impl("int8_avg_pool2d", TORCH_BOX(&fastinfer::int8_avg_pool2d_cpu));
  m.impl("int8_adaptive_avg_pool2d", TORCH_BOX(&fastinfer::int8_adaptive_avg_pool2d_cpu));
  m.impl("float_layer_norm", TORCH_BOX(&fastinfer::float_layer_norm_cpu));
  m.impl("float_softmax", TORCH_BOX(&fastinfer::float_softmax_cpu));
  m.impl("float_global_avg_pool2d", TORCH_BOX(&fastinfer::float_global_avg_pool2d_cpu));
  m.impl("float_reduce", TORCH_BOX(&fastinfer::float_reduce_cpu));
  m.impl("float_group_norm", TORCH_BOX(&fastinfer::float_group_norm_cpu));
  m.impl("float_matmul", TORCH_BOX(&fastinfer::float_matmul_cpu));
  m.impl("float_attention", TORCH_BOX(&fastinfer::float_attention_cpu));
  m.impl("float_unary", TORCH_BOX(&fastinfer::float_unary_cpu));
  m.impl("sparse_float_linear", TORCH_BOX(&fastinfer::sparse_float_linear_cpu));
  m.impl("sparse_float_conv2d", TORCH_BOX(&fastinfer::sparse_float_conv2d_cpu));
  m.impl("int8_upsample2d", TORCH_BOX(&fastinfer::int8_upsample2d_cpu));
  m.impl("float_upsample2d", TORCH_BOX(&fastinfer::float_upsample2d_cpu));
}

// A region without weights has no tensor that would name a device.
STABLE_TORCH_LIBRARY_IMPL(fastinfer, CompositeExplicitAutograd, m) {
  m.impl("int8_region_bind", TORCH_BOX(&fastinfer::int8_region_bind_cpu));
}
