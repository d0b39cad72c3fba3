#include "float_rows.cuh"

#include <cuda_runtime.h>

namespace fastinfer::cuda {
namespace {

template <int kValues>
unsigned blocks_of(int64_t rows) {
  constexpr int kRows = RowPart<kValues>::kRows;
  return static_cast<unsigned>((rows + kRows - 1) / kRows);
}

template <class... Pointers>
bool are_wide(int32_t n, Pointers... pointers) {
  return n % 4 == 0 && (reinterpret_cast<uintptr_t>(pointers) | ...) % 16 == 0;
}

}  // namespace

int launch_layer_norm(const NormRows& call, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  if (are_wide(call.n, call.x, call.out, call.weight, call.bias)) {
    float_layer_norm<4><<<blocks_of<4>(call.rows), kRowThreads, 0, on>>>(call);
  } else {
    float_layer_norm<1><<<blocks_of<1>(call.rows), kRowThreads, 0, on>>>(call);
  }
  return cudaGetLastError();
}

int launch_softmax(const SoftmaxRows& call, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  if (are_wide(call.n, call.x, call.out)) {
    float_softmax<4><<<blocks_of<4>(call.rows), kRowThreads, 0, on>>>(call);
  } else {
    float_softmax<1><<<blocks_of<1>(call.rows), kRowThreads, 0, on>>>(call);
  }
  return cudaGetLastError();
}

}  // namespace fastinfer::cuda
