#include "int8_patch_wgmma.cuh"

#include "launch.cuh"
#include "tensor_maps.h"

namespace fastinfer::cuda {
namespace {

template <class Tile, bool kIsWide>
int launch(const GemmCall& call, const PatchShape& shape, int multiprocessors,
           cudaStream_t stream) {
  constexpr auto kKernel = int8_patch_wgmma<Tile, kIsWide>;
  static SharedMemoryLimit limit;
  if (const cudaError_t error = limit.raise(kKernel, Tile::kSharedBytes, call.device)) return error;
  CUtensorMap x_map{}, weight_map{};
  const Windows& w = call.windows;
  const int64_t images = call.m / (int64_t{w.out_height} * w.out_width);
  if (const auto error = describe_image(x_map, call, images, shape.pixel_bytes, shape.width,
                                        shape.height, shape.images)) {
    return error;
  }
  // Images of weights are copied as they lie: as rows of 128 bytes.
  const int64_t bytes = gathered_bytes({Tile::kBlockN, 1}, call.n, call.k_padded);
  if (const auto error = describe(weight_map, call.packed + call.sparse, bytes / 128, 128,
                                  Tile::kImageBytes / 128, CU_TENSOR_MAP_SWIZZLE_NONE)) {
    return error;
  }
  const int64_t units = (images + shape.images - 1) / shape.images *
                        ((w.out_height + shape.rows - 1) / shape.rows) *
                        ((call.n + Tile::kBlockN - 1) / Tile::kBlockN);
  return launch_persistent<Tile>(kKernel, units, multiprocessors, stream, call, shape, x_map, weight_map);
}

template <int kBlockN>
int launch_from(const GemmCall& call, const PatchShape& s, int multiprocessors, cudaStream_t on) {
  if (s.pixel_bytes == 128) return launch<PatchTile<kBlockN>, true>(call, s, multiprocessors, on);
  return launch<PatchTile<kBlockN>, false>(call, s, multiprocessors, on);
}

}  // namespace

int launch_patch_wgmma(const GemmCall& call, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  int multiprocessors = 0;
  if (const auto error = read_multiprocessors(multiprocessors, call.device)) return error;
  const PatchShape shape = patch_shape(call);
  if (shape.rows == 0 || call.gather_steps != 1) return cudaErrorInvalidValue;
  switch (call.gather_channels) {
    case 256: return launch_from<256>(call, shape, multiprocessors, on);
    case 128: return launch_from<128>(call, shape, multiprocessors, on);
    case 64: return launch_from<64>(call, shape, multiprocessors, on);
    default: return cudaErrorInvalidValue;
  }
}

}  // namespace fastinfer::cuda
