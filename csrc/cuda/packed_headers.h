// The header of a packed weight on a device, known on the host without asking the device each time.
#pragma once

#include "../packed.h"
#include "device.h"
#include "gemm.h"
#include "tensors.h"

namespace fastinfer::cuda {

// Bytes of a run in a row of B: 4 where they hold it, as those of an image of 3 channels; else
// whole 16.
constexpr int32_t padded_run(int32_t run) { return run <= 4 ? 4 : (run + 15) / 16 * 16; }

// Bytes of a row of B.
constexpr int32_t padded_k(const PackedHeader& h) {
  return (h.k / h.run * padded_run(h.run) + 15) / 16 * 16;
}

// Notes the header of a buffer this process has just written.
void remember_header(const void* data, const PackedHeader& header);

// What a buffer was packed for.
PackedOp packed_op(const char* op, const Tensor& packed, const DeviceScope& scope);

// The header of a buffer that was packed for this op, output and mode; the errors of
// csrc/cpu/packed_check.cpp otherwise. A buffer that is seen for the first time is read from the
// device, which waits; the kernels check and read the buffer itself, whatever is noted here.
PackedHeader checked_header(const char* op, const Tensor& packed, PackedOp wanted,
                            bool float_output, const DeviceScope& scope,
                            bool is_dynamic = false);

// The residual a weight was packed with must come with the call, and only then.
void check_residual(const char* op, const PackedHeader& header,
                    const std::optional<Tensor>& residual, const std::vector<int64_t>& shape,
                    const DeviceScope& scope);

// The call of a product, without x, windows and m.
GemmCall bind_call(const PackedHeader& header, const Tensor& packed,
                   const std::optional<Tensor>& residual, const Tensor& out,
                   const DeviceScope& scope);

// What is known of the device; throws where it is too old for the kernels.
DeviceFacts checked_facts(const char* op, const DeviceScope& scope);

// Chooses a config and launches.
void run_gemm(const char* op, const GemmCall& call, const DeviceScope& scope);

}  // namespace fastinfer::cuda
