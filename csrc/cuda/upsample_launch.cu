#include "upsample.cuh"

#include <cuda_runtime.h>

namespace fastinfer::cuda {
namespace {

// Pixels of x from one pixel of the result to the next.
float scale_of(int64_t size, int64_t out, double factor) {
  if (factor > 0) return static_cast<float>(1.0 / factor);
  return static_cast<float>(size) / static_cast<float>(out);
}

template <int kBytes>
int launch_of(const UpsampleCall& call, cudaStream_t stream) {
  const int64_t places =
      int64_t{call.images} * call.h.out * call.w.out * (call.channels / kBytes);
  if (places >= kMostUpsampled) return cudaErrorInvalidValue;
  const auto blocks = static_cast<unsigned>((places + kUpsampleThreads - 1) / kUpsampleThreads);
  const auto count = static_cast<uint32_t>(places);
  if (call.bilinear) {
    int8_upsample<kBytes, true><<<blocks, kUpsampleThreads, 0, stream>>>(call, count);
  } else {
    int8_upsample<kBytes, false><<<blocks, kUpsampleThreads, 0, stream>>>(call, count);
  }
  return cudaGetLastError();
}

}  // namespace

UpsampleAxis nearest_axis(int64_t size, int64_t out, double factor) {
  return {static_cast<int32_t>(size), static_cast<int32_t>(out), scale_of(size, out, factor), 0};
}

UpsampleAxis linear_axis(int64_t size, int64_t out, double factor, bool align_corners) {
  UpsampleAxis axis{static_cast<int32_t>(size), static_cast<int32_t>(out), 0, 0};
  if (size == out) {
    axis.scale = 1;  // each pixel from itself, whatever the factor
  } else if (align_corners) {
    axis.scale = out > 1 ? scale_of(size - 1, out - 1, 0) : 0.0f;
  } else {
    axis.scale = scale_of(size, out, factor);
    axis.offset = 0.5f;
  }
  return axis;
}

int32_t upsample_bytes(const UpsampleCall& call) {
  const uint64_t all = reinterpret_cast<uintptr_t>(call.x) | reinterpret_cast<uintptr_t>(call.out) |
                       static_cast<uint64_t>(call.channels);
  return all % 16 == 0 ? 16 : all % 4 == 0 ? 4 : 1;
}

int launch_upsample(const UpsampleCall& call, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  switch (upsample_bytes(call)) {
    case 16: return launch_of<16>(call, on);
    case 4: return launch_of<4>(call, on);
    default: return launch_of<1>(call, on);
  }
}

}  // namespace fastinfer::cuda
