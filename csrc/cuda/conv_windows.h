// A convolution's arguments, checked, as sizes that kernels take.
#pragma once

#include "packed_headers.h"

namespace fastinfer::cuda {

using Ints = std::vector<int64_t>;

struct ConvArguments {
  const Ints &kernel_size, &stride, &padding, &dilation;
  int64_t out_channels, groups;
};

// A convolution's call, and the tensors it reads and writes. Where `out` is empty there is no call.
struct ConvCall {
  Tensor out, x;
  std::optional<Tensor> residual;
  GemmCall call;
};

// Throws unless x and the arguments are those the weight was packed for.
void check_conv(const char* op, const Tensor& x, const PackedHeader& h, const ConvArguments& a);

// Throws unless x, residual and the arguments are those the weight was packed for.
ConvCall bind_conv(const char* op, const PackedHeader& h, const Tensor& x, const Tensor& packed,
                   const std::optional<Tensor>& residual, const ConvArguments& a,
                   bool float_output, const DeviceScope& scope);

}  // namespace fastinfer::cuda
