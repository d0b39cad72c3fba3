#include "int8_gemm_wgmma.cuh"

#include <algorithm>

#include "launch.cuh"

namespace fastinfer::cuda {
namespace {

// A function of the driver, without linking against the driver.
template <class Function>
Function* driver_function(const char* name) {
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result;
  const cudaError_t error =
      cudaGetDriverEntryPointByVersion(name, &found, 12000, cudaEnableDefault, &result);
  return error == cudaSuccess && result == cudaDriverEntryPointSuccess
             ? reinterpret_cast<Function*>(found)
             : nullptr;
}

// A byte matrix [rows, columns] that is copied in boxes [box_rows, 128].
cudaError_t describe(CUtensorMap& map, const void* data, int64_t rows, int64_t columns,
                     int box_rows) {
  static auto* const encode =
      driver_function<decltype(cuTensorMapEncodeTiled)>("cuTensorMapEncodeTiled");
  if (encode == nullptr) return cudaErrorNotSupported;
  const cuuint64_t sizes[2] = {static_cast<cuuint64_t>(columns), static_cast<cuuint64_t>(rows)};
  const cuuint64_t strides[1] = {static_cast<cuuint64_t>(columns)};
  const cuuint32_t box[2] = {128, static_cast<cuuint32_t>(box_rows)};
  const cuuint32_t steps[2] = {1, 1};
  const CUresult result = encode(
      &map, CU_TENSOR_MAP_DATA_TYPE_UINT8, 2, const_cast<void*>(data), sizes, strides, box, steps,
      CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
      CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

// The windows of an image, copied tap by tap in boxes of `pixels` rows and call.pixel_bytes.
cudaError_t describe_windows(CUtensorMap& map, const GemmCall& call, int pixels) {
  static auto* const encode =
      driver_function<decltype(cuTensorMapEncodeIm2col)>("cuTensorMapEncodeIm2col");
  if (encode == nullptr) return cudaErrorNotSupported;
  const Windows& w = call.windows;
  const auto size = [](int64_t v) { return static_cast<cuuint64_t>(v); };
  const int64_t images = call.m / (int64_t{w.out_height} * w.out_width);
  const int64_t line = int64_t{w.width} * w.channels;
  const cuuint64_t sizes[4] = {size(w.channels), size(w.width), size(w.height), size(images)};
  const cuuint64_t strides[3] = {size(w.channels), size(line), size(line * w.height)};
  // Of the places where windows start: width, then height.
  const int lower[2] = {-w.pad_w, -w.pad_h};
  const int upper[2] = {w.pad_w - (w.kw - 1) * w.dilation_w, w.pad_h - (w.kh - 1) * w.dilation_h};
  const cuuint32_t steps[4] = {1, static_cast<cuuint32_t>(w.stride_w),
                               static_cast<cuuint32_t>(w.stride_h), 1};
  const auto swizzle = call.pixel_bytes == 128  ? CU_TENSOR_MAP_SWIZZLE_128B
                       : call.pixel_bytes == 64 ? CU_TENSOR_MAP_SWIZZLE_64B
                                                : CU_TENSOR_MAP_SWIZZLE_32B;
  const CUresult result =
      encode(&map, CU_TENSOR_MAP_DATA_TYPE_UINT8, 4, const_cast<uint8_t*>(call.x), sizes, strides,
             lower, upper, static_cast<cuuint32_t>(call.pixel_bytes),
             static_cast<cuuint32_t>(pixels), steps, CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

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
  const auto clusters = std::min(units, int64_t{multiprocessors} / Tile::kCluster);
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = Tile::kCluster;
  attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(clusters * Tile::kCluster));
  config.blockDim = dim3(Tile::kThreads);
  config.dynamicSmemBytes = Tile::kSharedBytes;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = Tile::kCluster > 1 ? 1 : 0;
  return cudaLaunchKernelEx(&config, kKernel, call, a_map, b_map);
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
  if (const cudaError_t error = cudaDeviceGetAttribute(
          &multiprocessors, cudaDevAttrMultiProcessorCount, call.device)) {
    return error;
  }
  if (config.source == RowSource::kMatrix) {
    return launch_from<RowSource::kMatrix>(call, config, multiprocessors, on);
  }
  return launch_from<RowSource::kPixels>(call, config, multiprocessors, on);
}

}  // namespace fastinfer::cuda
