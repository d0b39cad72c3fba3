// One int8 product on the GPU: what is asked for, and how it is run. No torch, no CUDA types.
//
// C[m, n] = A[m, k] * B[k, n], once for each group. A's rows are those of a matrix, or the windows
// of an NHWC image: row i of A is the window of output pixel i. B is a packed weight in the form
// "fragments" (docs/layouts.md).
#pragma once

#include <cstdint>
#include <vector>

namespace fastinfer::cuda {

// A convolution's sizes. A matrix is an image a row, of one pixel, under a 1 x 1 kernel.
struct Windows {
  int32_t height, width, channels;  // channels: of all groups
  int32_t out_height, out_width;
  int32_t kh, kw, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w;

  bool is_matrix() const {
    return kh == 1 && kw == 1 && stride_h == 1 && stride_w == 1 && pad_h == 0 && pad_w == 0;
  }
};

struct GemmCall {
  const uint8_t* x;
  const uint8_t* packed;  // the buffer: its header, then sections
  const void* residual;   // laid out as `out`, or null
  void* out;
  int64_t m;
  int32_t n;           // output channels of a group
  int32_t n_padded;    // rows of B of a group
  int32_t run;         // neighbouring bytes of x: channels of a group, or k of a matrix
  int32_t run_padded;  // the same in B: 4, or a multiple of 16
  int32_t k_padded;    // bytes of a row of B, a multiple of 16
  int32_t groups;
  int32_t device;
  int32_t pixel_bytes;  // of kPixels: that a bulk copy takes of a pixel; 128, 64 or 32
  Windows windows;
  // Of a dynamic weight, else null: what x's rows were quantized with, one for so many rows.
  const float* row_scale;
  const int32_t* row_zero_point;
  uint32_t rows_per_range;
};

enum class GemmKernel : int32_t {
  kMma,    // sm_80 and later: mma.sync, cp.async
  kWgmma,  // sm_90a: wgmma, bulk copies
};

enum class RowSource : int32_t {
  kMatrix,   // rows of whole, aligned 16 bytes
  kPixels,   // windows that bulk copies can gather: whole, aligned 32 bytes a pixel
  kWindows,  // windows of aligned 16 bytes a pixel
  kNarrow,   // anything else, through registers
};

struct GemmConfig {
  GemmKernel kernel;
  RowSource source;
  int32_t block_m, block_n;
  int32_t cluster;  // blocks that share tiles of B
};

// What the choice of a config depends on.
struct GemmDesc {
  int64_t m;
  int32_t n, k_padded, groups;
  RowSource source;
  int32_t capability;  // 80, 90, ...: of the device
  int32_t multiprocessors;
};

// The config for a product. Pure: no device is asked.
GemmConfig choose_config(const GemmDesc& desc);

// Every kernel and tile there is; the source of rows does not matter in them.
std::vector<GemmConfig> known_configs();

// How the rows of A can be read.
RowSource row_source(const GemmCall& call);

// The bytes that a bulk copy takes of a pixel, for a group of `run` channels.
int32_t pixel_bytes(int32_t run);

// Launch on a stream (a cudaStream_t); 0 or a cudaError_t.
int launch_mma(const GemmCall& call, const GemmConfig& config, void* stream);
int launch_wgmma(const GemmCall& call, const GemmConfig& config, void* stream);

}  // namespace fastinfer::cuda
