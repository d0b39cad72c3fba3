#include "int8_depthwise.cuh"

#include <cuda_runtime.h>

#include <algorithm>

namespace fastinfer::cuda {
namespace {

constexpr int32_t kMostImages = 65535;  // of a grid's y; a block loops over more

int32_t log2_at_least(int64_t value) {
  int32_t log2 = 0;
  while ((int64_t{1} << log2) < value) log2++;
  return log2;
}

template <int kKernel, int kStride>
int launch_strip(const GemmCall& call, const DepthwiseConfig& config, cudaStream_t stream) {
  const Windows& w = call.windows;
  const int32_t row_tiles = (w.out_height + 1) / 2, lines = kStripThreads / config.lanes;
  const int64_t strips = (w.out_width + config.strip - 1) / config.strip;
  const int64_t places = strips * (call.n / kLaneChannels);
  const int32_t row_blocks = (row_tiles + lines - 1) / lines;
  const int64_t blocks = (places + config.lanes - 1) / config.lanes * row_blocks;
  if (blocks >= int64_t{1} << 31) return cudaErrorInvalidConfiguration;
  const int64_t images = call.m / (int64_t{w.out_height} * w.out_width);
  const dim3 grid(static_cast<unsigned>(blocks),
                  static_cast<unsigned>(std::min<int64_t>(images, kMostImages)));
  int8_depthwise_strip<kKernel, kStride><<<grid, kStripThreads, 0, stream>>>(
      call, config.strip, log2_at_least(config.lanes), row_blocks, static_cast<int32_t>(images));
  return cudaGetLastError();
}

int launch_any(const GemmCall& call, int32_t lanes, cudaStream_t stream) {
  const int64_t chunks = (call.n + kLaneChannels - 1) / kLaneChannels;
  const int64_t pixels = kDepthwiseThreads / lanes;
  const dim3 grid(static_cast<unsigned>((call.m + pixels - 1) / pixels),
                  static_cast<unsigned>((chunks + lanes - 1) / lanes));
  const bool has_vectors =
      call.n % kLaneChannels == 0 && reinterpret_cast<uintptr_t>(call.x) % kLaneChannels == 0;
  int8_depthwise_any<<<grid, kDepthwiseThreads, 0, stream>>>(call, log2_at_least(lanes),
                                                             has_vectors);
  return cudaGetLastError();
}

}  // namespace

DepthwiseConfig choose_depthwise(const GemmCall& call, bool float_output) {
  const Windows& w = call.windows;
  const auto places = reinterpret_cast<uintptr_t>(call.x) | reinterpret_cast<uintptr_t>(call.out);
  const bool is_square = w.kh == w.kw && (w.kh == 3 || w.kh == 5) && w.stride_h == w.stride_w &&
                         w.stride_h <= 2 && w.dilation_h == 1 && w.dilation_w == 1;
  const int64_t chunks = (call.n + kLaneChannels - 1) / kLaneChannels;
  const bool is_plain = is_square && !float_output && call.residual == nullptr;
  if (!is_plain || call.n % kLaneChannels != 0 || places % kLaneChannels != 0) {
    return {0, 0, 0, 1 << std::min<int32_t>(log2_at_least(chunks), 5)};
  }
  // Rows below each other in one block, as L1 then has what they share, but no more than there are.
  const int32_t lines = 1 << std::min<int32_t>(log2_at_least((w.out_height + 1) / 2), 3);
  // The longest strip that leaves enough threads to hide loads; widths are often 7 times a power
  // of 2.
  constexpr int64_t kEnoughThreads = 132 * 384;
  const int64_t pairs = call.m / w.out_width / 2 * chunks;
  int32_t strip = 2;
  for (const int32_t longer : {4, 7, 14, 28}) {
    if ((w.out_width + longer - 1) / longer * pairs >= kEnoughThreads) strip = longer;
  }
  return {w.kh, w.stride_h, strip, kStripThreads / lines};
}

int launch_depthwise(const GemmCall& call, const DepthwiseConfig& config, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  const auto is = [&config](int kernel, int stride) {
    return config.kernel == kernel && config.stride == stride;
  };
  if (is(3, 1)) return launch_strip<3, 1>(call, config, on);
  if (is(3, 2)) return launch_strip<3, 2>(call, config, on);
  if (is(5, 1)) return launch_strip<5, 1>(call, config, on);
  if (is(5, 2)) return launch_strip<5, 2>(call, config, on);
  return launch_any(call, config.lanes, on);
}

}  // namespace fastinfer::cuda
