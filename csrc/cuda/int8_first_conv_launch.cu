#include "int8_first_conv.cuh"

#include <cuda_runtime.h>

#include <algorithm>

namespace fastinfer::cuda {
namespace {

template <int kTaps>
int launch_of(const GemmCall& call, const FirstConvConfig& f, cudaStream_t stream) {
  const int32_t panels = call.n_padded / kFirstPanel;
  const dim3 grid(static_cast<unsigned>(f.blocks), static_cast<unsigned>((panels + 1) / 2));
  const size_t shared = size_t{4} * static_cast<size_t>(f.in_rows) * static_cast<size_t>(f.pitch);
  int8_first_conv<kTaps><<<grid, kFirstThreads, shared, stream>>>(call, f);
  return cudaGetLastError();
}

}  // namespace

int launch_first_conv(const GemmCall& call, const FirstConvConfig& config, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  switch (config.taps) {
    case 3: return launch_of<3>(call, config, on);
    case 4: return launch_of<4>(call, config, on);
    case 7: return launch_of<7>(call, config, on);
    default: return cudaErrorInvalidValue;
  }
}

}  // namespace fastinfer::cuda
