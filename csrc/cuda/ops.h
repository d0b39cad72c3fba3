// The CUDA op functions; registration.cpp binds them.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "../tensor_check.h"

namespace fastinfer::cuda {

Tensor quantize_cuda(Tensor x, double scale, int64_t zero_point, bool channels_last);
Tensor int8_prepack_cuda(std::string op, Tensor weight, Tensor bias, Tensor multiplier,
                         std::optional<Tensor> residual_multiplier, std::optional<Tensor> table,
                         std::optional<Tensor> float_bias, int64_t groups, int64_t x_zero_point,
                         int64_t out_zero_point, int64_t qmin, int64_t qmax, double clamp_min,
                         double clamp_max, bool float_output);
Tensor int8_linear_cuda(Tensor x, Tensor packed, std::optional<Tensor> residual,
                        int64_t out_features, bool float_output);
Tensor int8_conv2d_cuda(Tensor x, Tensor packed, std::optional<Tensor> residual,
                        int64_t out_channels, std::vector<int64_t> kernel_size,
                        std::vector<int64_t> stride, std::vector<int64_t> padding,
                        std::vector<int64_t> dilation, int64_t groups, bool float_output);
Tensor int8_depthwise_conv2d_cuda(Tensor x, Tensor packed, std::optional<Tensor> residual,
                                  std::vector<int64_t> kernel_size, std::vector<int64_t> stride,
                                  std::vector<int64_t> padding, std::vector<int64_t> dilation,
                                  bool float_output);

}  // namespace fastinfer::cuda
