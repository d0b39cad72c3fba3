// A convolution's arguments, checked, as sizes that kernels take.
#pragma once

#include "packed_headers.h"

namespace fastinfer::cuda {

using Ints = std::vector<int64_t>;

struct ConvArguments {
  const Ints &kernel_size, &stride, &padding, &dilation;
  int64_t out_channels, groups;
};

// Throws unless x and the arguments are those the weight was packed for.
Windows checked_windows(const char* op, const Tensor& x, const PackedHeader& h,
                        const ConvArguments& a);

// Output pixels of [N, C, H, W], which kernels count in int32.
int64_t checked_pixels(const char* op, const Ints& shape);

}  // namespace fastinfer::cuda
