// The kernels of float steps between int8 layers.
#pragma once

#include "float_elements.h"
#include "float_matmul.h"
#include "float_sums.h"

namespace fastinfer {
namespace {

template <class Vec>
constexpr FloatKernels float_kernels() {
  return {binary_row<Vec>,     unary_row<Vec>,  reduce_rows<Vec>,
          reduce_columns<Vec>, group_norm<Vec>, matmul<Vec>, max_taps<Vec>};
}

}  // namespace
}  // namespace fastinfer
