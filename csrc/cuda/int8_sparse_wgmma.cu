#include "int8_sparse_wgmma.cuh"

#include "launch.cuh"
#include "tensor_maps.h"

namespace fastinfer::cuda {
namespace {

template <class Tile>
int launch(const GemmCall& call, int multiprocessors, cudaStream_t stream) {
  constexpr auto kKernel = int8_sparse_wgmma<Tile>;
  static SharedMemoryLimit limit;
  if (const cudaError_t error = limit.raise(kKernel, Tile::kSharedBytes, call.device)) return error;
  CUtensorMap x_map{}, weight_map{};
  if (const auto error = Tile::kIsMatrix ? describe(x_map, call.x, call.m, call.run, Tile::kShare)
                                         : describe_windows(x_map, call, Tile::kShare)) {
    return error;
  }
  // Images are copied as they lie: as rows of 128 bytes.
  const int64_t image_bytes = call.groups * two_of_four_bytes(call.n, call.k_padded);
  if (const auto error = describe(weight_map, call.packed + call.sparse, image_bytes / 128, 128,
                                  kTwoOfFourBytes / 128, CU_TENSOR_MAP_SWIZZLE_NONE)) {
    return error;
  }
  constexpr int kColumns = Tile::kBlockN * Tile::kCluster;
  const int64_t units = (call.m + Tile::kBlockM - 1) / Tile::kBlockM *
                        ((call.n + kColumns - 1) / kColumns) * call.groups;
  return launch_persistent<Tile>(kKernel, units, multiprocessors, stream, call, x_map, weight_map);
}

template <RowSource kSource>
int launch_from(const GemmCall& call, const GemmConfig& f, int multiprocessors, cudaStream_t on) {
  const auto is = [&f](int m, int n) { return f.block_m == m && f.block_n == n; };
  if (is(256, 128) && f.cluster == 2) {
    return launch<SparseTile<2, 256, 2, kSource>>(call, multiprocessors, on);
  }
  if (is(256, 128)) return launch<SparseTile<2, 256, 1, kSource>>(call, multiprocessors, on);
  if (is(128, 128)) return launch<SparseTile<2, 128, 1, kSource>>(call, multiprocessors, on);
  if (is(128, 64)) return launch<SparseTile<1, 128, 1, kSource>>(call, multiprocessors, on);
  if (is(64, 64)) return launch<SparseTile<1, 64, 1, kSource>>(call, multiprocessors, on);
  return cudaErrorInvalidValue;
}

}  // namespace

int launch_sparse_wgmma(const GemmCall& call, const GemmConfig& config, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  int multiprocessors = 0;
  if (const auto error = read_multiprocessors(multiprocessors, call.device)) return error;
  if (config.source == RowSource::kMatrix) {
    return launch_from<RowSource::kMatrix>(call, config, multiprocessors, on);
  }
  return launch_from<RowSource::kPixels>(call, config, multiprocessors, on);
}

}  // namespace fastinfer::cuda
