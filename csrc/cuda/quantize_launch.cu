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

namespace {

template <int kChannels>
void launch_few(const QuantizeCall& call, cudaStream_t stream) {
  constexpr int kPixels = 4 * kQuantizeThreads;
  const dim3 grid(static_cast<unsigned>((call.pixels + kPixels - 1) / kPixels),
                  static_cast<unsigned>(std::min<int64_t>(call.images, 65535)));
  const bool has_vectors = call.pixels % 4 == 0 && reinterpret_cast<uintptr_t>(call.x) % 16 == 0 &&
                           reinterpret_cast<uintptr_t>(call.out) % 4 == 0;
  quantize_few_planes<kChannels><<<grid, kQuantizeThreads, 0, stream>>>(call, has_vectors);
}

}  // namespace

int launch_quantize_planes(const QuantizeCall& call, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  switch (call.channels) {
    case 2: launch_few<2>(call, on); return cudaGetLastError();
    case 3: launch_few<3>(call, on); return cudaGetLastError();
    case 4: launch_few<4>(call, on); return cudaGetLastError();
    default: break;
  }
  const dim3 grid(static_cast<unsigned>((call.pixels + kTurnPixels - 1) / kTurnPixels),
                  static_cast<unsigned>((call.channels + kTurnChannels - 1) / kTurnChannels),
                  static_cast<unsigned>(std::min<int64_t>(call.images, 65535)));
  const bool has_vectors =
      call.channels % 16 == 0 && reinterpret_cast<uintptr_t>(call.out) % 16 == 0;
  quantize_planes<<<grid, kQuantizeThreads, 0, on>>>(call, has_vectors);
  return cudaGetLastError();
}

}  // namespace fastinfer::cuda
