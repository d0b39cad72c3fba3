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
  int64_t sparse;      // where the buffer has the image of sparse weights, or 0
  int32_t n;           // output channels of a group
  int32_t n_padded;    // rows of B of a group
  int32_t run;         // neighbouring bytes of x: channels of a group, or k of a matrix
  int32_t run_padded;  // the same in B: 4, or a multiple of 16
  int32_t k_padded;    // bytes of a row of B, a multiple of 16
  int32_t groups;
  int32_t device;
  // Channels that keep the same inputs, and steps of 32 kept (pack_gathered.h); 0 of 2:4 weights.
  int32_t gather_channels, gather_steps;
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
  kSparseWgmma,  // sm_90a: the same with 2:4 weights, block_m pixels x block_n channels
  kGatherWgmma,  // sm_90a: the same where channels keep the same inputs
  kSparseMma,    // sm_80 and later: mma.sp, block_m pixels x block_n channels
  kPatchWgmma,   // sm_90a: as kGatherWgmma, whole lines of a convolution's outputs (patch.h)
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
  int32_t cluster;  // blocks that share tiles of B, or of pixels where weights are sparse
};

// What the choice of a config depends on.
struct GemmDesc {
  int64_t m;
  int32_t n, k_padded, groups;
  RowSource source;
  int32_t capability;  // 80, 90, ...: of the device
  int32_t multiprocessors;
  bool has_sparse = false;  // whether the weight is there for a sparse kernel too
  int32_t gather_channels = 0, gather_steps = 0;  // as in GemmCall
  int32_t pixel_bytes = 128;                      // as in GemmCall
  int32_t patch_tiles = 0, patch_bytes = 0;       // along m, and of x for each; 0: there are none
};

// The config for a product. Pure: no device is asked.
GemmConfig choose_config(const GemmDesc& desc);

// Every kernel and tile there is; the source of rows does not matter in them.
std::vector<GemmConfig> known_configs();

// The same of 2:4 weights, and of those of which channels keep the same inputs.
std::vector<GemmConfig> known_sparse_configs();
std::vector<GemmConfig> known_gather_configs();

// By which sparse kernels must win to be chosen.
constexpr double kSparseMargin = 1.02;

// Cycles by estimate of the best dense tile, and of each kind of sparse weight's.
double dense_cost(const GemmDesc& desc);
double two_of_four_cost(const GemmDesc& desc);
double gather_cost(const GemmDesc& desc);

// Whether a sparse kernel can read these rows and this weight.
bool takes_sparse(const GemmDesc& desc, GemmKernel kernel);

// How the rows of A can be read.
RowSource row_source(const GemmCall& call);

// The bytes that a bulk copy takes of a pixel, for a group of `run` channels.
int32_t pixel_bytes(int32_t run);

// Launch on a stream (a cudaStream_t); 0 or a cudaError_t.
int launch_mma(const GemmCall& call, const GemmConfig& config, void* stream);
int launch_wgmma(const GemmCall& call, const GemmConfig& config, void* stream);
int launch_sparse_wgmma(const GemmCall& call, const GemmConfig& config, void* stream);
int launch_gather_wgmma(const GemmCall& call, const GemmConfig& config, void* stream);
int launch_sparse_mma(const GemmCall& call, const GemmConfig& config, void* stream);
int launch_patch_wgmma(const GemmCall& call, void* stream);

// The launch of a config's kernel.
inline int launch_gemm(const GemmCall& call, const GemmConfig& config, void* stream) {
  switch (config.kernel) {
    case GemmKernel::kMma: return launch_mma(call, config, stream);
    case GemmKernel::kWgmma: return launch_wgmma(call, config, stream);
    case GemmKernel::kSparseWgmma: return launch_sparse_wgmma(call, config, stream);
    case GemmKernel::kGatherWgmma: return launch_gather_wgmma(call, config, stream);
    case GemmKernel::kSparseMma: return launch_sparse_mma(call, config, stream);
    case GemmKernel::kPatchWgmma: break;
  }
  return launch_patch_wgmma(call, stream);
}

}  // namespace fastinfer::cuda
