// What launching a kernel needs besides its arguments.
#pragma once

#include <cuda_runtime.h>

#include <atomic>
#include <cstdint>

namespace fastinfer::cuda {

// Lets one kernel have more than 48 KiB of shared memory, once on each device.
class SharedMemoryLimit {
 public:
  template <class Kernel>
  cudaError_t raise(Kernel* kernel, int bytes, int device) {
    const uint64_t bit = uint64_t{1} << (device % 64);
    if ((raised_.load(std::memory_order_relaxed) & bit) != 0 && device < 64) return cudaSuccess;
    const cudaError_t error =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (error == cudaSuccess) raised_.fetch_or(bit, std::memory_order_relaxed);
    return error;
  }

 private:
  std::atomic<uint64_t> raised_{0};
};

}  // namespace fastinfer::cuda
