// The CUDA kernels of the ops whose schemas fastinfer/ops/catalog.py defines.
#include <torch/csrc/stable/library.h>

#include "ops.h"

STABLE_TORCH_LIBRARY_IMPL(fastinfer, CUDA, m) {
  m.impl("quantize", TORCH_BOX(&fastinfer::cuda::quantize_cuda));
  m.impl("int8_prepack", TORCH_BOX(&fastinfer::cuda::int8_prepack_cuda));
  m.impl("int8_linear", TORCH_BOX(&fastinfer::cuda::int8_linear_cuda));
  m.impl("int8_conv2d", TORCH_BOX(&fastinfer::cuda::int8_conv2d_cuda));
  m.impl("int8_depthwise_conv2d", TORCH_BOX(&fastinfer::cuda::int8_depthwise_conv2d_cuda));
  m.impl("dequantize", TORCH_BOX(&fastinfer::cuda::dequantize_cuda));
  m.impl("int8_lookup", TORCH_BOX(&fastinfer::cuda::int8_lookup_cuda));
  m.impl("int8_add", TORCH_BOX(&fastinfer::cuda::int8_add_cuda));
  m.impl("int8_mul", TORCH_BOX(&fastinfer::cuda::int8_mul_cuda));
  m.impl("int8_cat", TORCH_BOX(&fastinfer::cuda::int8_cat_cuda));
  m.impl("int8_max_pool2d", TORCH_BOX(&fastinfer::cuda::int8_max_pool2d_cuda));
  m.impl("int8_avg_pool2d", TORCH_BOX(&fastinfer::cuda::int8_avg_pool2d_cuda));
  m.impl("int8_adaptive_avg_pool2d", TORCH_BOX(&fastinfer::cuda::int8_adaptive_avg_pool2d_cuda));
  m.impl("int8_upsample2d", TORCH_BOX(&fastinfer::cuda::int8_upsample2d_cuda));
  m.impl("quantize_dynamic", TORCH_BOX(&fastinfer::cuda::quantize_dynamic_cuda));
  m.impl("int8_linear_dynamic", TORCH_BOX(&fastinfer::cuda::int8_linear_dynamic_cuda));
  m.impl("int8_conv2d_dynamic", TORCH_BOX(&fastinfer::cuda::int8_conv2d_dynamic_cuda));
  m.impl("float_layer_norm", TORCH_BOX(&fastinfer::cuda::float_layer_norm_cuda));
  m.impl("float_softmax", TORCH_BOX(&fastinfer::cuda::float_softmax_cuda));
}
