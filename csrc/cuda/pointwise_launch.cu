#include "pointwise.cuh"

#include <cuda_runtime.h>

namespace fastinfer::cuda {
namespace {

unsigned blocks_of(int64_t count) {
  constexpr int64_t kPerBlock = int64_t{kPointwiseThreads} * kPointwiseBytes;
  return static_cast<unsigned>((count + kPerBlock - 1) / kPerBlock);
}

template <class... Pointers>
bool are_aligned(uintptr_t to, Pointers... pointers) {
  return ((reinterpret_cast<uintptr_t>(pointers) | ...)) % to == 0;
}

template <bool kIsProduct>
void launch_pair_of(const PairCall& call, cudaStream_t stream) {
  const unsigned blocks = blocks_of(call.count);
  if (call.repeats.channels == 0) {
    int8_pair<kIsProduct, 0><<<blocks, kPointwiseThreads, 0, stream>>>(
        call, are_aligned(16, call.x, call.y, call.out));
    return;
  }
  const bool is_wide = are_aligned(16, call.x, call.out);
  if (call.repeats.channels % 8 == 0 && are_aligned(8, call.y)) {
    int8_pair<kIsProduct, 8><<<blocks, kPointwiseThreads, 0, stream>>>(call, is_wide);
  } else {
    int8_pair<kIsProduct, 1><<<blocks, kPointwiseThreads, 0, stream>>>(call, is_wide);
  }
}

template <int kBytes>
int launch_cat_of(const CatCall& call, cudaStream_t stream) {
  const int64_t row_pieces = call.width / kBytes, pieces = row_pieces * call.rows;
  if (pieces >= kMostPlaces) return cudaErrorInvalidValue;
  const auto blocks = static_cast<unsigned>((pieces + kPointwiseThreads - 1) / kPointwiseThreads);
  int8_cat<kBytes><<<blocks, kPointwiseThreads, 0, stream>>>(
      call, static_cast<uint32_t>(row_pieces), static_cast<uint32_t>(pieces));
  return cudaGetLastError();
}

}  // namespace

int launch_pair(const PairCall& call, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  if (call.repeats.channels != 0 && call.count >= kMostPlaces) return cudaErrorInvalidValue;
  if (call.is_product) {
    launch_pair_of<true>(call, on);
  } else {
    launch_pair_of<false>(call, on);
  }
  return cudaGetLastError();
}

int launch_lookup(const LookupCall& call, void* stream) {
  int8_lookup<<<blocks_of(call.count), kPointwiseThreads, 0, static_cast<cudaStream_t>(stream)>>>(
      call, are_aligned(16, call.x, call.out));
  return cudaGetLastError();
}

int launch_dequantize(const DequantizeCall& call, void* stream) {
  dequantize_codes<<<blocks_of(call.count), kPointwiseThreads, 0,
                     static_cast<cudaStream_t>(stream)>>>(
      call, are_aligned(16, call.out) && are_aligned(4, call.x));
  return cudaGetLastError();
}

int32_t cat_bytes(const CatCall& call) {
  uint64_t all = reinterpret_cast<uintptr_t>(call.out) | static_cast<uint64_t>(call.step);
  for (int i = 0; i < call.count; i++) {
    all |= reinterpret_cast<uintptr_t>(call.parts[i].x);
    all |= static_cast<uint64_t>(call.parts[i].width);
  }
  return all % 16 == 0 ? 16 : all % 4 == 0 ? 4 : 1;
}

int launch_cat(const CatCall& call, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  switch (cat_bytes(call)) {
    case 16: return launch_cat_of<16>(call, on);
    case 4: return launch_cat_of<4>(call, on);
    default: return launch_cat_of<1>(call, on);
  }
}

}  // namespace fastinfer::cuda
