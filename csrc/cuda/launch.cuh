// What launching a kernel needs besides its arguments.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
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

inline cudaError_t read_multiprocessors(int& count, int device) {
  return cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
}

// Starts a kernel whose blocks go on over `units`, each the work of a cluster of Tile::kCluster: as
// many clusters as the device holds, a block on each multiprocessor.
template <class Tile, class... Parameters, class... Arguments>
cudaError_t launch_persistent(void (*kernel)(Parameters...), int64_t units, int multiprocessors,
                              cudaStream_t stream, const Arguments&... arguments) {
  const auto clusters = std::min(units, int64_t{multiprocessors} / Tile::kCluster);
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = Tile::kCluster;
  attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(clusters * Tile::kCluster));
  config.blockDim = dim3(Tile::kThreads);
  config.dynamicSmemBytes = Tile::kSharedBytes;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = Tile::kCluster > 1 ? 1 : 0;
  return cudaLaunchKernelEx(&config, kernel, arguments...);
}

}  // namespace fastinfer::cuda
