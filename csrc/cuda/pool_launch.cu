#include "pool.cuh"

#include <cuda_runtime.h>

namespace fastinfer::cuda {
namespace {

// Places of kBytes that a launch has a thread for.
int64_t places_of(const PoolCall& call, int32_t bytes) {
  return int64_t{call.images} * call.h.out * call.w.out * (call.channels / bytes);
}

unsigned blocks_of(int64_t threads) {
  return static_cast<unsigned>((threads + kPoolThreads - 1) / kPoolThreads);
}

template <int kBytes>
int launch_max(const PoolCall& call, cudaStream_t stream) {
  const int64_t places = places_of(call, kBytes);
  if (places >= kMostPooled) return cudaErrorInvalidValue;
  int8_max_pool<kBytes><<<blocks_of(places), kPoolThreads, 0, stream>>>(
      call, static_cast<uint32_t>(places));
  return cudaGetLastError();
}

template <int kBytes>
int launch_mean(const AverageCall& call, cudaStream_t stream) {
  const int64_t places = places_of(call.pool, kBytes);
  if (places >= kMostPooled) return cudaErrorInvalidValue;
  int8_average<kBytes><<<blocks_of(places), kPoolThreads, 0, stream>>>(
      call, static_cast<uint32_t>(places));
  return cudaGetLastError();
}

template <int kBytes>
int launch_split(const AverageCall& call, int32_t splits, cudaStream_t stream) {
  const int32_t chunks = (call.pool.channels + kSplitChannels - 1) / kSplitChannels;
  const dim3 grid(static_cast<unsigned>(call.pool.images) * static_cast<unsigned>(splits),
                  static_cast<unsigned>(chunks));
  int8_split_average<kBytes><<<grid, kPoolThreads, 0, stream>>>(call, splits);
  return cudaGetLastError();
}

}  // namespace

int launch_max_pool(const PoolCall& call, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  switch (pool_bytes(call)) {
    case 16: return launch_max<16>(call, on);
    case 4: return launch_max<4>(call, on);
    default: return launch_max<1>(call, on);
  }
}

int launch_average(const AverageCall& call, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  switch (pool_bytes(call.pool)) {
    case 16: return launch_mean<16>(call, on);
    case 4: return launch_mean<4>(call, on);
    default: return launch_mean<1>(call, on);
  }
}

int launch_split_average(const AverageCall& call, int32_t splits, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  switch (pool_bytes(call.pool)) {
    case 16: return launch_split<16>(call, splits, on);
    case 4: return launch_split<4>(call, splits, on);
    default: return launch_split<1>(call, splits, on);
  }
}

int launch_finish_average(const AverageCall& call, int32_t splits, void* stream) {
  const int64_t places = int64_t{call.pool.images} * call.pool.channels;
  int8_finish_average<<<blocks_of(places), kPoolThreads, 0, static_cast<cudaStream_t>(stream)>>>(
      call, splits);
  return cudaGetLastError();
}

}  // namespace fastinfer::cuda
