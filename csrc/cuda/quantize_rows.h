// Quantizing float rows by their own ranges on the GPU: arguments and launchers. No torch, no CUDA.
#pragma once

#include <cstdint>

namespace fastinfer::cuda {

// Rows, each with a scale and a zero point of its own: of a matrix, a whole tensor, or an image.
struct RangeCall {
  const float* x;  // [rows, n]
  uint8_t* out;    // [rows, n]; or padded images
  float* scale;    // [rows]
  int32_t* zero_point;
  float* bounds;  // [rows, splits, 2]: the least and the largest of a share; where rows are split
  int64_t rows, n;
  int32_t splits;  // blocks of a row; 0: one block finds its range and quantizes it
  // Of images [height, width, channels] whose results have `pad_h` rows and `pad_w` columns of the
  // zero point round them; channels 0: none.
  int32_t height, width, channels, pad_h, pad_w;
};

// How many blocks share a row. Pure.
int32_t range_splits(int64_t rows, int64_t n, int32_t multiprocessors);

// Launch on a stream (a cudaStream_t); 0 or a cudaError_t.
int launch_quantize_rows(const RangeCall& call, void* stream);
// Of rows that are split: what the least and the largest are; then the codes.
int launch_find_bounds(const RangeCall& call, void* stream);
int launch_quantize_split(const RangeCall& call, void* stream);

}  // namespace fastinfer::cuda
