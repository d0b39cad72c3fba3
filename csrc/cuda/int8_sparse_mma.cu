#include "int8_sparse_mma.cuh"

#include "launch.cuh"

namespace fastinfer::cuda {
namespace {

template <int kBlockM, int kBlockN, RowSource kSource>
int launch(const GemmCall& call, cudaStream_t stream) {
  using Tile = SparseMmaTile<kBlockM, kBlockN>;
  constexpr auto kKernel = int8_sparse_mma<kBlockM, kBlockN, kSource>;
  static SharedMemoryLimit limit;
  if (const cudaError_t error = limit.raise(kKernel, Tile::kSharedBytes, call.device)) return error;
  const auto m_tiles = static_cast<int32_t>((call.m + kBlockM - 1) / kBlockM);
  const int32_t n_tiles = (call.n + kBlockN - 1) / kBlockN;
  const dim3 grid(static_cast<unsigned>(m_tiles) * static_cast<unsigned>(n_tiles),
                  static_cast<unsigned>(call.groups));
  kKernel<<<grid, Tile::kThreads, Tile::kSharedBytes, stream>>>(call, m_tiles, n_tiles);
  return cudaGetLastError();
}

template <int kBlockM, int kBlockN>
int launch_from(const GemmCall& call, RowSource source, cudaStream_t stream) {
  if (source == RowSource::kNarrow) return cudaErrorInvalidValue;
  if (source == RowSource::kMatrix) {
    return launch<kBlockM, kBlockN, RowSource::kMatrix>(call, stream);
  }
  return launch<kBlockM, kBlockN, RowSource::kWindows>(call, stream);
}

}  // namespace

int launch_sparse_mma(const GemmCall& call, const GemmConfig& config, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  const auto is = [&config](int m, int n) { return config.block_m == m && config.block_n == n; };
  if (is(128, 128)) return launch_from<128, 128>(call, config.source, on);
  if (is(64, 64)) return launch_from<64, 64>(call, config.source, on);
  return cudaErrorInvalidValue;
}

}  // namespace fastinfer::cuda
