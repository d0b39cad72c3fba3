// The CPU op functions; registration.cpp binds them.
#pragma once

#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "../tensor_check.h"

namespace fastinfer {

Tensor quantize_cpu(Tensor x, double scale, int64_t zero_point, bool channels_last);
Tensor dequantize_cpu(Tensor x, double scale, int64_t zero_point);
std::tuple<Tensor, Tensor, Tensor> quantize_dynamic_cpu(Tensor x, bool per_token);
Tensor int8_prepack_cpu(std::string op, Tensor weight, Tensor bias, Tensor multiplier,
                        std::optional<Tensor> residual_multiplier, std::optional<Tensor> table,
                        std::optional<Tensor> float_bias, int64_t groups, int64_t x_zero_point,
                        int64_t out_zero_point, int64_t qmin, int64_t qmax, double clamp_min,
                        double clamp_max, bool float_output, bool strided);
Tensor int8_linear_cpu(Tensor x, Tensor packed, std::optional<Tensor> residual,
                       int64_t out_features, bool float_output);
Tensor int8_linear_dynamic_cpu(Tensor x, Tensor packed, int64_t out_features, bool per_token);
Tensor int8_conv2d_cpu(Tensor x, Tensor packed, std::optional<Tensor> residual,
                       int64_t out_channels, std::vector<int64_t> kernel_size,
                       std::vector<int64_t> stride, std::vector<int64_t> padding,
                       std::vector<int64_t> dilation, int64_t groups, bool float_output);
Tensor int8_depthwise_conv2d_cpu(Tensor x, Tensor packed, std::optional<Tensor> residual,
                                 std::vector<int64_t> kernel_size, std::vector<int64_t> stride,
                                 std::vector<int64_t> padding, std::vector<int64_t> dilation,
                                 bool float_output);
Tensor int8_conv2d_dynamic_cpu(Tensor x, Tensor packed, int64_t out_channels,
                               std::vector<int64_t> kernel_size, std::vector<int64_t> stride,
                               std::vector<int64_t> padding, std::vector<int64_t> dilation,
                               int64_t groups);
Tensor int8_lookup_cpu(Tensor x, Tensor table);
Tensor int8_add_cpu(Tensor x, Tensor y, double x_multiplier, int64_t x_zero_point,
                    double y_multiplier, int64_t y_zero_point, int64_t out_zero_point,
                    int64_t qmin, int64_t qmax, std::optional<Tensor> table);
Tensor int8_mul_cpu(Tensor x, Tensor y, double multiplier, int64_t x_zero_point,
                    int64_t y_zero_point, int64_t out_zero_point, int64_t qmin, int64_t qmax);
Tensor int8_cat_cpu(std::vector<Tensor> xs, int64_t dim, std::vector<double> multipliers,
                    std::vector<int64_t> zero_points, int64_t out_zero_point);
Tensor int8_max_pool2d_cpu(Tensor x, std::vector<int64_t> kernel_size, std::vector<int64_t> stride,
                           std::vector<int64_t> padding, std::vector<int64_t> dilation,
                           bool ceil_mode);
Tensor int8_avg_pool2d_cpu(Tensor x, std::vector<int64_t> kernel_size, std::vector<int64_t> stride,
                           std::vector<int64_t> padding, bool ceil_mode, bool count_include_pad,
                           double multiplier, int64_t x_zero_point, int64_t out_zero_point,
                           int64_t qmin, int64_t qmax);
Tensor int8_adaptive_avg_pool2d_cpu(Tensor x, std::vector<int64_t> output_size, double multiplier,
                                    int64_t x_zero_point, int64_t out_zero_point, int64_t qmin,
                                    int64_t qmax);
Tensor int8_upsample2d_cpu(Tensor x, std::optional<Tensor> like, std::vector<int64_t> output_size,
                           std::vector<double> scale_factors, bool bilinear, bool align_corners);
Tensor float_upsample2d_cpu(Tensor x, std::optional<Tensor> like,
                            std::vector<int64_t> output_size, std::vector<double> scale_factors,
                            bool align_corners);
Tensor float_layer_norm_cpu(Tensor x, std::optional<Tensor> weight, std::optional<Tensor> bias,
                            double eps, int64_t dim);
Tensor float_softmax_cpu(Tensor x, int64_t dim);
Tensor float_reduce_cpu(Tensor x, std::vector<int64_t> dims, std::string function);
Tensor float_group_norm_cpu(Tensor x, int64_t groups, std::optional<Tensor> weight,
                            std::optional<Tensor> bias, double eps);
Tensor float_matmul_cpu(Tensor a, Tensor b);
Tensor float_attention_cpu(Tensor q, Tensor k, Tensor v, double scale, std::optional<Tensor> mask,
                           bool is_causal);
Tensor float_unary_cpu(Tensor x, std::string function);
Tensor float_global_avg_pool2d_cpu(Tensor x);
Tensor sparse_float_linear_cpu(Tensor x, Tensor values, Tensor places, Tensor starts,
                               std::optional<Tensor> bias, std::optional<Tensor> residual,
                               std::vector<int64_t> weight_shape,
                               double clamp_min, double clamp_max);
Tensor sparse_float_conv2d_cpu(Tensor x, Tensor values, Tensor places, Tensor starts,
                               std::optional<Tensor> bias, std::optional<Tensor> residual,
                               std::vector<int64_t> weight_shape,
                               std::vector<int64_t> stride, std::vector<int64_t> padding,
                               std::vector<int64_t> dilation, int64_t groups, double clamp_min,
                               double clamp_max);
std::vector<Tensor> int8_region_cpu(std::vector<Tensor> inputs, std::vector<Tensor> packed,
                                    std::string program);
int64_t int8_region_bind_cpu(std::vector<Tensor> packed, std::string program);
std::vector<Tensor> int8_region_call_cpu(std::vector<Tensor> inputs, int64_t region);
Tensor int8_region_call_one_cpu(Tensor input, int64_t region);

}  // namespace fastinfer
