#include "int8_gather_wgmma.cuh"

#include "launch.cuh"
#include "tensor_maps.h"

namespace fastinfer::cuda {
namespace {

template <class Tile>
int launch(const GemmCall& call, int multiprocessors, cudaStream_t stream) {
  constexpr auto kKernel = int8_gather_wgmma<Tile>;
  static SharedMemoryLimit limit;
  if (const cudaError_t error = limit.raise(kKernel, Tile::kSharedBytes, call.device)) return error;
  CUtensorMap x_map{}, weight_map{};
  if (const auto error = Tile::kIsMatrix
                             ? describe(x_map, call.x, call.m, call.run, Tile::kBlockM)
                             : describe_windows(x_map, call, Tile::kBlockM)) {
    return error;
  }
  // Images are copied as they lie: as rows of 128 bytes.
  const int64_t bytes =
      call.groups * gathered_bytes({Tile::kBlockN, Tile::kSteps}, call.n, call.k_padded);
  if (const auto error = describe(weight_map, call.packed + call.sparse, bytes / 128, 128,
                                  Tile::kImageBytes / 128, CU_TENSOR_MAP_SWIZZLE_NONE)) {
    return error;
  }
  const int64_t units = (call.m + Tile::kBlockM - 1) / Tile::kBlockM *
                        ((call.n + Tile::kBlockN - 1) / Tile::kBlockN) * call.groups;
  return launch_persistent<Tile>(kKernel, units, multiprocessors, stream, call, x_map, weight_map);
}

template <int kBlockM, int kBlockN, int kSteps>
int launch_from(const GemmCall& call, RowSource source, int multiprocessors, cudaStream_t on) {
  if (source == RowSource::kMatrix) {
    return launch<GatherTile<kBlockM, kBlockN, kSteps, RowSource::kMatrix>>(
        call, multiprocessors, on);
  }
  return launch<GatherTile<kBlockM, kBlockN, kSteps, RowSource::kPixels>>(
      call, multiprocessors, on);
}

}  // namespace

int launch_gather_wgmma(const GemmCall& call, const GemmConfig& config, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  int multiprocessors = 0;
  if (const auto error = read_multiprocessors(multiprocessors, call.device)) return error;
  const RowSource from = config.source;
  const int n = call.gather_channels;
  if (call.gather_steps == 2) {  // 128 pixels only, and not of 256 channels: registers
    if (n == 128) return launch_from<128, 128, 2>(call, from, multiprocessors, on);
    if (n == 64) return launch_from<128, 64, 2>(call, from, multiprocessors, on);
    return cudaErrorInvalidValue;
  }
  const auto is = [&config, n](int m, int channels) {
    return config.block_m == m && n == channels;
  };
  if (is(256, 64)) return launch_from<256, 64, 1>(call, from, multiprocessors, on);
  if (is(128, 256)) return launch_from<128, 256, 1>(call, from, multiprocessors, on);
  if (is(128, 128)) return launch_from<128, 128, 1>(call, from, multiprocessors, on);
  if (is(128, 64)) return launch_from<128, 64, 1>(call, from, multiprocessors, on);
  if (is(64, 256)) return launch_from<64, 256, 1>(call, from, multiprocessors, on);
  if (is(64, 128)) return launch_from<64, 128, 1>(call, from, multiprocessors, on);
  return cudaErrorInvalidValue;
}

}  // namespace fastinfer::cuda
