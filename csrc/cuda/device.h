// What the op functions ask of a device. No torch, no CUDA types.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace fastinfer::cuda {

struct DeviceFacts {
  int32_t capability;  // 80, 90, ...
  int32_t multiprocessors;
};

DeviceFacts device_facts(int32_t device);

// Copies bytes from the device to the host in the stream's order, and waits. 0 or a cudaError_t.
int read_device(void* to, const void* from, size_t bytes, void* stream);

// Whether a graph records the stream, which then must not be waited for.
bool is_capturing(void* stream);

std::string error_text(int error);

}  // namespace fastinfer::cuda
