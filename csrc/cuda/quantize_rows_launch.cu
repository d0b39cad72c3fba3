#include "quantize_rows.cuh"

#include <cuda_runtime.h>

#include <algorithm>

namespace fastinfer::cuda {
namespace {

bool is_wide(const RangeCall& call) {
  return call.n % 4 == 0 && reinterpret_cast<uintptr_t>(call.x) % 16 == 0 &&
         reinterpret_cast<uintptr_t>(call.out) % 4 == 0;
}

bool has_too_many_blocks(const RangeCall& call) {
  return call.rows * std::max(call.splits, 1) >= int64_t{1} << 31;
}

}  // namespace

int32_t range_splits(int64_t rows, int64_t n, int32_t multiprocessors) {
  constexpr int64_t kShare = 16384;  // values that are worth a block
  const int64_t wanted = (int64_t{4} * multiprocessors + rows - 1) / rows;
  return static_cast<int32_t>(std::clamp<int64_t>(std::min(wanted, n / kShare), 1, 1024));
}

int launch_quantize_rows(const RangeCall& call, void* stream) {
  constexpr int64_t kShort = 1024;  // values of a row that a warp takes
  if (has_too_many_blocks(call)) return cudaErrorInvalidValue;
  const auto on = static_cast<cudaStream_t>(stream);
  const auto blocks = static_cast<unsigned>(call.rows);
  if (call.n <= kShort) {
    quantize_each_row<1><<<blocks, 32, 0, on>>>(call, is_wide(call));
  } else {
    quantize_each_row<kRangeWarps><<<blocks, kRangeThreads, 0, on>>>(call, is_wide(call));
  }
  return cudaGetLastError();
}

int launch_find_bounds(const RangeCall& call, void* stream) {
  if (has_too_many_blocks(call)) return cudaErrorInvalidValue;
  const auto blocks = static_cast<unsigned>(call.rows * call.splits);
  find_bounds<<<blocks, kRangeThreads, 0, static_cast<cudaStream_t>(stream)>>>(call, is_wide(call));
  return cudaGetLastError();
}

int launch_quantize_split(const RangeCall& call, void* stream) {
  if (has_too_many_blocks(call)) return cudaErrorInvalidValue;
  const auto on = static_cast<cudaStream_t>(stream);
  const auto blocks = static_cast<unsigned>(call.rows * call.splits);
  if (call.channels == 0) {
    quantize_split<<<blocks, kRangeThreads, 0, on>>>(call, is_wide(call));
  } else if (call.channels % 4 == 0 && is_wide(call)) {
    quantize_padded<4><<<blocks, kRangeThreads, 0, on>>>(call);
  } else {
    quantize_padded<1><<<blocks, kRangeThreads, 0, on>>>(call);
  }
  return cudaGetLastError();
}

}  // namespace fastinfer::cuda
