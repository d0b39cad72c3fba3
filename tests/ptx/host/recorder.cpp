// A CUDA runtime without a GPU: launchers of csrc/cuda run against it, and it hands what they
// launch to a callback. Only what those launchers call is here.
#include "recorder.h"

#include <cuda.h>
#include <cuda_runtime.h>

#include <cstring>
#include <unordered_map>
#include <utility>

namespace {

struct Configuration {
  dim3 grid, block;
  size_t shared;
};

std::unordered_map<const void*, const char*>& names() {  // of kernels, by their host stubs
  static std::unordered_map<const void*, const char*> all;
  return all;
}

std::unordered_map<const void*, int> shared_limits;
Configuration pushed;
Callback callback = nullptr;
int multiprocessors = 0;
cudaError_t last_error = cudaSuccess;

constexpr int kSharedWithoutAsking = 48 * 1024;

cudaError_t record(const void* kernel, const Configuration& c, unsigned cluster, void** arguments) {
  const bool is_grid = c.grid.x >= 1 && c.grid.x < (1u << 31) && c.grid.y >= 1 &&
                       c.grid.y < (1u << 16) && c.grid.z >= 1 && c.grid.z < (1u << 16);
  const unsigned threads = c.block.x * c.block.y * c.block.z;
  if (!is_grid || threads < 1 || threads > 1024) return cudaErrorInvalidConfiguration;
  const auto limit = shared_limits.find(kernel);
  const int most = limit == shared_limits.end() ? kSharedWithoutAsking : limit->second;
  if (static_cast<int>(c.shared) > most) return cudaErrorInvalidValue;
  const unsigned sizes[8] = {c.grid.x,  c.grid.y,  c.grid.z, c.block.x,
                             c.block.y, c.block.z, static_cast<unsigned>(c.shared), cluster};
  callback(names().at(kernel), sizes, arguments);
  return cudaSuccess;
}

CUresult encode(CUtensorMap* to, RecordedMap map, CUtensorMapDataType type, cuuint32_t rank,
                void* address, const cuuint64_t* sizes, const cuuint64_t* strides,
                const cuuint32_t* steps, CUtensorMapSwizzle swizzle) {
  static_assert(sizeof(RecordedMap) <= sizeof(CUtensorMap));
  if (type != CU_TENSOR_MAP_DATA_TYPE_UINT8 || rank > 5) return CUDA_ERROR_NOT_SUPPORTED;
  map.magic = kMapMagic;
  map.rank = static_cast<uint8_t>(rank);
  map.swizzle = static_cast<uint8_t>(swizzle);
  map.address = reinterpret_cast<uint64_t>(address);
  if (map.address % 16 != 0) return CUDA_ERROR_INVALID_VALUE;
  for (cuuint32_t i = 0; i < rank; i++) {
    if (sizes[i] == 0 || sizes[i] > 0xFFFFFFFFu || steps[i] == 0 || steps[i] > 8) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    map.sizes[i] = static_cast<uint32_t>(sizes[i]);
    map.steps[i] = static_cast<uint8_t>(steps[i]);
    if (i + 1 == rank) break;
    if (strides[i] % 16 != 0 || strides[i] >= (uint64_t{1} << 40)) return CUDA_ERROR_INVALID_VALUE;
    map.strides[i] = strides[i];
  }
  std::memset(to, 0, sizeof(*to));
  std::memcpy(to, &map, sizeof(map));
  return CUDA_SUCCESS;
}

bool fits_swizzle(unsigned bytes, CUtensorMapSwizzle swizzle) {
  return swizzle == CU_TENSOR_MAP_SWIZZLE_NONE || bytes <= (16u << static_cast<int>(swizzle));
}

CUresult encode_tiled(CUtensorMap* to, CUtensorMapDataType type, cuuint32_t rank, void* address,
                      const cuuint64_t* sizes, const cuuint64_t* strides, const cuuint32_t* box,
                      const cuuint32_t* steps, CUtensorMapInterleave, CUtensorMapSwizzle swizzle,
                      CUtensorMapL2promotion, CUtensorMapFloatOOBfill) {
  RecordedMap map{};
  for (cuuint32_t i = 0; i < rank && i < 5; i++) {
    if (box[i] == 0 || box[i] > 256) return CUDA_ERROR_INVALID_VALUE;
    map.box[i] = static_cast<uint16_t>(box[i]);
  }
  if (box[0] % 16 != 0 || !fits_swizzle(box[0], swizzle)) return CUDA_ERROR_INVALID_VALUE;
  return encode(to, map, type, rank, address, sizes, strides, steps, swizzle);
}

CUresult encode_im2col(CUtensorMap* to, CUtensorMapDataType type, cuuint32_t rank, void* address,
                       const cuuint64_t* sizes, const cuuint64_t* strides, const int* lower,
                       const int* upper, cuuint32_t channels, cuuint32_t pixels,
                       const cuuint32_t* steps, CUtensorMapInterleave, CUtensorMapSwizzle swizzle,
                       CUtensorMapL2promotion, CUtensorMapFloatOOBfill) {
  if (rank != 4) return CUDA_ERROR_NOT_SUPPORTED;
  RecordedMap map{};
  map.is_im2col = 1;
  for (int i = 0; i < 2; i++) {
    if (lower[i] < -128 || lower[i] > 127 || upper[i] < -128 || upper[i] > 127) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    map.lower[i] = static_cast<int16_t>(lower[i]);
    map.upper[i] = static_cast<int16_t>(upper[i]);
  }
  if (channels == 0 || channels > 256 || pixels == 0 || pixels > 1024 ||
      !fits_swizzle(channels, swizzle)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  map.channels = static_cast<uint16_t>(channels);
  map.pixels = static_cast<uint16_t>(pixels);
  return encode(to, map, type, rank, address, sizes, strides, steps, swizzle);
}

}  // namespace

void set_recorder(Callback to, int count) {
  callback = to;
  multiprocessors = count;
}

// What nvcc's own code calls has no header.
extern "C" {

void** __cudaRegisterFatBinary(void* binary) { return reinterpret_cast<void**>(binary); }
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}

void __cudaRegisterFunction(void**, const char* stub, char*, const char* name, int, uint3*, uint3*,
                            dim3*, dim3*, int*) {
  names()[stub] = name;
}

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, void*) {
  pushed = {grid, block, shared};
  return 0;
}

cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, void* stream) {
  *grid = pushed.grid;
  *block = pushed.block;
  *shared = pushed.shared;
  *static_cast<void**>(stream) = nullptr;
  return cudaSuccess;
}

cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* stub) {
  *kernel = reinterpret_cast<cudaKernel_t>(const_cast<void*>(stub));
  return cudaSuccess;
}

cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void** arguments,
                               size_t shared, cudaStream_t) {
  return last_error = record(kernel, {grid, block, shared}, 1, arguments);
}

cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* c, const void* stub, void** arguments) {
  unsigned cluster = 1;
  for (unsigned i = 0; i < c->numAttrs; i++) {
    if (c->attrs[i].id != cudaLaunchAttributeClusterDimension) return cudaErrorNotSupported;
    cluster = c->attrs[i].val.clusterDim.x;
  }
  return record(stub, {c->gridDim, c->blockDim, c->dynamicSmemBytes}, cluster, arguments);
}

cudaError_t cudaFuncSetAttribute(const void* stub, cudaFuncAttribute attribute, int value) {
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaErrorNotSupported;
  if (value > 227 * 1024) return cudaErrorInvalidValue;
  shared_limits[stub] = value;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  if (attribute != cudaDevAttrMultiProcessorCount) return cudaErrorNotSupported;
  *value = multiprocessors;
  return cudaSuccess;
}

cudaError_t cudaGetDriverEntryPointByVersion(const char* name, void** function, unsigned,
                                             unsigned long long,
                                             cudaDriverEntryPointQueryResult* result) {
  *function = nullptr;
  if (std::strcmp(name, "cuTensorMapEncodeTiled") == 0) {
    *function = reinterpret_cast<void*>(&encode_tiled);
  } else if (std::strcmp(name, "cuTensorMapEncodeIm2col") == 0) {
    *function = reinterpret_cast<void*>(&encode_im2col);
  }
  *result = *function ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
  return cudaSuccess;
}

cudaError_t cudaGetLastError() { return std::exchange(last_error, cudaSuccess); }

}  // extern "C"
