#include <algorithm>

#include "quantize.cuh"

namespace fastinfer::cuda {
namespace {

template <FloatType kType>
void launch_in_order(const QuantizeCall& call, cudaStream_t stream) {
  constexpr int64_t kPerBlock = int64_t{kQuantizeThreads} * kQuantizeValues;
  const auto blocks = static_cast<unsigned>((call.count + kPerBlock - 1) / kPerBlock);
  const auto places = reinterpret_cast<uintptr_t>(call.x) | reinterpret_cast<uintptr_t>(call.out);
  quantize_in_order<kType><<<blocks, kQuantizeThreads, 0, stream>>>(call, places % 16 == 0);
}

template <FloatType kType, int kChannels>
void launch_few(const QuantizeCall& call, cudaStream_t stream) {
  constexpr int kPixels = 4 * kQuantizeThreads;
  const dim3 grid(static_cast<unsigned>((call.pixels + kPixels - 1) / kPixels),
                  static_cast<unsigned>(std::min<int64_t>(call.images, 65535)));
  const bool has_vectors = call.pixels % 4 == 0 && reinterpret_cast<uintptr_t>(call.x) % 16 == 0 &&
                           reinterpret_cast<uintptr_t>(call.out) % 4 == 0;
  quantize_few_planes<kType, kChannels><<<grid, kQuantizeThreads, 0, stream>>>(call, has_vectors);
}

template <FloatType kType>
void launch_planes(const QuantizeCall& call, cudaStream_t stream) {
  switch (call.channels) {
    case 2: return launch_few<kType, 2>(call, stream);
    case 3: return launch_few<kType, 3>(call, stream);
    case 4: return launch_few<kType, 4>(call, stream);
    default: break;
  }
  const dim3 grid(static_cast<unsigned>((call.pixels + kTurnPixels - 1) / kTurnPixels),
                  static_cast<unsigned>((call.channels + kTurnChannels - 1) / kTurnChannels),
                  static_cast<unsigned>(std::min<int64_t>(call.images, 65535)));
  const bool has_vectors =
      call.channels % 16 == 0 && reinterpret_cast<uintptr_t>(call.out) % 16 == 0;
  quantize_planes<kType><<<grid, kQuantizeThreads, 0, stream>>>(call, has_vectors);
}

// launch(a FloatType as a template argument's value) for x's type.
template <class Launch>
int launch_of(const QuantizeCall& call, const Launch& launch) {
  switch (call.type) {
    case FloatType::kFloat32: launch.template operator()<FloatType::kFloat32>(); break;
    case FloatType::kFloat16: launch.template operator()<FloatType::kFloat16>(); break;
    case FloatType::kBfloat16: launch.template operator()<FloatType::kBfloat16>(); break;
  }
  return cudaGetLastError();
}

}  // namespace

int launch_quantize(const QuantizeCall& call, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  return launch_of(call, [&]<FloatType kType>() { launch_in_order<kType>(call, on); });
}

int launch_quantize_planes(const QuantizeCall& call, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  return launch_of(call, [&]<FloatType kType>() { launch_planes<kType>(call, on); });
}

}  // namespace fastinfer::cuda
