// What an op's packed weight must be for its arguments, checked once at the border.
#pragma once

#include "../tensor_check.h"
#include "gemm_driver.h"
#include "packed_view.h"

namespace fastinfer {

// Checks magic, version, size, op, mode and that the buffer was packed for the ISA in force.
PackedView view_packed(const char* op, const Tensor& packed, PackedOp wanted, bool dynamic,
                       bool float_output);

// The residual a weight was packed with must come with the call, and only then. `shape` is the
// result's.
void check_residual(const char* op, const PackedView& view, const std::optional<Tensor>& residual,
                    const std::vector<int64_t>& shape);

// Results go to `out`, the residual (contiguous like `out`, or absent) comes from `residual`.
GemmOutput bind_output(const Tensor& out, const std::optional<Tensor>& residual,
                       bool float_output, int64_t ldc);

}  // namespace fastinfer
