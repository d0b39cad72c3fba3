// Tensor maps, by which bulk copies know a matrix or an image's windows. Host only.
#pragma once

#include <cuda.h>
#include <cuda_runtime.h>

#include "gemm.h"

namespace fastinfer::cuda {

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
inline cudaError_t describe(CUtensorMap& map, const void* data, int64_t rows, int64_t columns,
                            int box_rows,
                            CUtensorMapSwizzle swizzle = CU_TENSOR_MAP_SWIZZLE_128B) {
  static auto* const encode =
      driver_function<decltype(cuTensorMapEncodeTiled)>("cuTensorMapEncodeTiled");
  if (encode == nullptr) return cudaErrorNotSupported;
  const cuuint64_t sizes[2] = {static_cast<cuuint64_t>(columns), static_cast<cuuint64_t>(rows)};
  const cuuint64_t strides[1] = {static_cast<cuuint64_t>(columns)};
  const cuuint32_t box[2] = {128, static_cast<cuuint32_t>(box_rows)};
  const cuuint32_t steps[2] = {1, 1};
  const CUresult result = encode(
      &map, CU_TENSOR_MAP_DATA_TYPE_UINT8, 2, const_cast<void*>(data), sizes, strides, box, steps,
      CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
      CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

// The windows of an image, copied tap by tap in boxes of `pixels` rows and call.pixel_bytes.
inline cudaError_t describe_windows(CUtensorMap& map, const GemmCall& call, int pixels) {
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

// An image whose boxes of `bytes` channels, width, height and images are copied.
inline cudaError_t describe_image(CUtensorMap& map, const GemmCall& call, int64_t images, int bytes,
                                  int width, int height, int count) {
  static auto* const encode =
      driver_function<decltype(cuTensorMapEncodeTiled)>("cuTensorMapEncodeTiled");
  if (encode == nullptr) return cudaErrorNotSupported;
  const Windows& w = call.windows;
  const auto size = [](int64_t v) { return static_cast<cuuint64_t>(v); };
  const int64_t line = int64_t{w.width} * w.channels;
  const cuuint64_t sizes[4] = {size(w.channels), size(w.width), size(w.height), size(images)};
  const cuuint64_t strides[3] = {size(w.channels), size(line), size(line * w.height)};
  const auto narrow = [](int v) { return static_cast<cuuint32_t>(v); };
  const cuuint32_t box[4] = {narrow(bytes), narrow(width), narrow(height), narrow(count)};
  const cuuint32_t steps[4] = {1, 1, 1, 1};
  const auto swizzle = bytes == 128 ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_64B;
  const CUresult result = encode(
      &map, CU_TENSOR_MAP_DATA_TYPE_UINT8, 4, const_cast<uint8_t*>(call.x), sizes, strides, box,
      steps, CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
      CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

}  // namespace fastinfer::cuda
