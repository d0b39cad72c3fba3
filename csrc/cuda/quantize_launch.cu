#include <algorithm>

#include "quantize.cuh"

namespace fastinfer::cuda {

int launch_quantize(const QuantizeCall& call, void* stream) {
  constexpr int64_t kPerBlock = int64_t{kQuantizeThreads} * kQuantizeValues;
  const auto blocks = static_cast<unsigned>((call.count + kPerBlock - 1) / kPerBlock);
  const auto places = reinterpret_cast<uintptr_t>(call.x) | reinterpret_cast<uintptr_t>(call.out);
  quantize_in_order<<<blocks, kQuantizeThreads, 0, static_cast<cudaStream_t>(stream)>>>(
      call, places % 16 == 0);
  return cudaGetLastError();
}

int launch_quantize_planes(const QuantizeCall& call, void* stream) {
  const dim3 grid(static_cast<unsigned>((call.pixels + kTurnPixels - 1) / kTurnPixels),
                  static_cast<unsigned>((call.channels + kTurnChannels - 1) / kTurnChannels),
                  static_cast<unsigned>(std::min<int64_t>(call.images, 65535)));
  quantize_planes<<<grid, kQuantizeThreads, 0, static_cast<cudaStream_t>(stream)>>>(call);
  return cudaGetLastError();
}

}  // namespace fastinfer::cuda
