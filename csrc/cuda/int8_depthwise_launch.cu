#include "int8_depthwise.cuh"

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

namespace fastinfer::cuda {
namespace {

constexpr int32_t kMostImages = 65535;  // of a grid's y; a block loops over more

int32_t log2_at_least(int64_t value) {
  int32_t log2 = 0;
  while ((int64_t{1} << log2) < value) log2++;
  return log2;
}

constexpr int64_t rounded_up_quotient(int64_t a, int64_t b) { return (a + b - 1) / b; }

struct StripGrid {
  int64_t row_blocks;  // of an image's rows of outputs
  int64_t blocks;      // of an image
  int64_t images;
};

StripGrid strip_grid(const GemmCall& call, int32_t strip, int32_t lanes) {
  const Windows& w = call.windows;
  const int64_t row_tiles = (w.out_height + 1) / 2, lines = kStripThreads / lanes;
  const int64_t places = rounded_up_quotient(w.out_width, strip) * (call.n / kLaneChannels);
  const int64_t row_blocks = rounded_up_quotient(row_tiles, lines);
  return {row_blocks, rounded_up_quotient(places, lanes) * row_blocks,
          call.m / (int64_t{w.out_height} * w.out_width)};
}

// In proportion to the time of a launch, less what all take: columns that a block walks along, times
// rounds of blocks over the device, and half a column for its start. A last round that is not full
// costs two thirds of a full one, and what it has of the rest. Fitted to two sweeps on an H100 (the
// second is bench/results/gpu_bench_h100.json), on whose multiprocessors it counts: within 4.2 % of
// the best of 15 for all shapes in both, which differ by as much.
int64_t strip_cost(const GemmCall& call, int32_t strip, int32_t lanes) {
  const Windows& w = call.windows;
  const StripGrid grid = strip_grid(call, strip, lanes);
  const int64_t blocks = grid.blocks * grid.images, at_a_time = 132 * strip_blocks(w.kw);
  const int64_t columns = int64_t{std::min(strip, w.out_width) - 1} * w.stride_w + w.kw;
  return (blocks + 2 * rounded_up_quotient(blocks, at_a_time) * at_a_time) * (2 * columns + 1);
}

template <int kKernel, int kStride>
int launch_strip(const GemmCall& call, const DepthwiseConfig& config, cudaStream_t stream) {
  const StripGrid g = strip_grid(call, config.strip, config.lanes);
  if (g.blocks >= int64_t{1} << 31) return cudaErrorInvalidConfiguration;
  const dim3 grid(static_cast<unsigned>(g.blocks),
                  static_cast<unsigned>(std::min<int64_t>(g.images, kMostImages)));
  int8_depthwise_strip<kKernel, kStride><<<grid, kStripThreads, 0, stream>>>(
      call, config.strip, log2_at_least(config.lanes), static_cast<int32_t>(g.row_blocks),
      static_cast<int32_t>(g.images));
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
  DepthwiseConfig best{w.kh, w.stride_h, 0, 0};
  int64_t least = INT64_MAX;
  for (const int32_t strip : {2, 4, 7, 14, 28}) {  // widths are often 7 times a power of 2
    for (const int32_t lanes : {16, 32, 64}) {
      const int64_t cost = strip_cost(call, strip, lanes);
      if (cost >= least) continue;
      least = cost;
      best.strip = strip;
      best.lanes = lanes;
    }
  }
  return best;
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
