// The CUDA kernels of the ops whose schemas fastinfer/ops/catalog.py defines.
#include <torch/csrc/stable/library.h>

#include "ops.h"

STABLE_TORCH_LIBRARY_IMPL(fastinfer, CUDA, m) {
  m.impl("quantize", TORCH_BOX(&fastinfer::cuda::quantize_cuda));
  m.impl("int8_prepack", TORCH_BOX(&fastinfer::cuda::int8_prepack_cuda));
  m.impl("int8_linear", TORCH_BOX(&fastinfer::cuda::int8_linear_cuda));
  m.impl("int8_conv2d", TORCH_BOX(&fastinfer::cuda::int8_conv2d_cuda));
  m.impl("int8_depthwise_conv2d", TORCH_BOX(&fastinfer::cuda::int8_depthwise_conv2d_cuda));
}
