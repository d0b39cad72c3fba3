#include "int8_gemm_wgmma.cuh"

#include "launch.cuh"
#include "tensor_maps.h"

namespace fastinfer::cuda {
namespace {

template <class Tile>
int launch(const GemmCall& call, int multiprocessors, cudaStream_t stream) {
  constexpr auto kKernel = int8_gemm_wgmma<Tile>;
  static SharedMemoryLimit limit;
  if (const cudaError_t error = limit.raise(kKernel, Tile::kSharedBytes, call.device)) return error;
  CUtensorMap a_map{}, b_map{};
  if (const auto error = Tile::kIsMatrix
                             ? describe(a_map, call.x, call.m, call.run, Tile::kBlockM)
                             : describe_windows(a_map, call, Tile::kBlockM)) {
    return error;
  }
  if (const auto error = describe(b_map, call.packed + kPackedHeaderBytes,
                                  int64_t{call.n_padded} * call.groups, call.k_padded,
                                  Tile::kBlockN / Tile::kCluster)) {
    return error;
  }
  constexpr int kRows = Tile::kBlockM * Tile::kCluster;
  const int64_t units =
      (call.m + kRows - 1) / kRows * ((call.n + Tile::kBlockN - 1) / Tile::kBlockN) * call.groups;
  return launch_persistent<Tile>(kKernel, units, multiprocessors, stream, call, a_map, b_map);
}

template <RowSource kSource>
int launch_from(const GemmCall& call, const GemmConfig& f, int multiprocessors, cudaStream_t on) {
  const auto is = [&f](int m, int n) { return f.block_m == m && f.block_n == n; };
  if (is(128, 256) && f.cluster == 2) {
    return launch<WgmmaTile<2, 256, 2, kSource>>(call, multiprocessors, on);
  }
  if (is(128, 256)) return launch<WgmmaTile<2, 256, 1, kSource>>(call, multiprocessors, on);
  if (is(128, 128)) return launch<WgmmaTile<2, 128, 1, kSource>>(call, multiprocessors, on);
  if (is(128, 64)) return launch<WgmmaTile<2, 64, 1, kSource>>(call, multiprocessors, on);
  if (is(64, 128)) return launch<WgmmaTile<1, 128, 1, kSource>>(call, multiprocessors, on);
  if (is(64, 64)) return launch<WgmmaTile<1, 64, 1, kSource>>(call, multiprocessors, on);
  return cudaErrorInvalidValue;
}

}  // namespace

int launch_wgmma(const GemmCall& call, const GemmConfig& config, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  int multiprocessors = 0;
  if (const auto error = read_multiprocessors(multiprocessors, call.device)) return error;
  if (config.source == RowSource::kMatrix) {
    return launch_from<RowSource::kMatrix>(call, config, multiprocessors, on);
  }
  return launch_from<RowSource::kPixels>(call, config, multiprocessors, on);
}

}  // namespace fastinfer::cuda
