// Padding that is not zero: bulk copies fill with zeros what lies outside an image, and a warpgroup
// writes the zero point over it before it multiplies.
#pragma once

#include "mma.cuh"
#include "windows.cuh"

namespace fastinfer::cuda {

// For one thread of a warpgroup: half of one row of 64, in every stage.
template <int kRows>  // of a whole stage
struct PaddingFill {
  static constexpr int kUnit = 32, kUnits = 2;  // bytes that are padding or not; of a thread
  uint32_t codes;
  int32_t row, first;       // of the stage; byte of the row
  uint32_t offset[kUnits];  // in the stage
  WindowOrigin origin;
  WindowPlace place[kUnits];
  bool is_needed;

  __device__ __forceinline__ PaddingFill(const GemmCall& c, int thread, int first_row) {
    const int32_t zero_point = reinterpret_cast<const PackedHeader*>(c.packed)->x_zero_point;
    is_needed = zero_point != 0 && (c.windows.pad_h | c.windows.pad_w) != 0;
    codes = static_cast<uint32_t>(zero_point) * 0x01010101u;
    row = first_row + thread / 2;
    first = thread % 2 * kUnit * kUnits;
#pragma unroll
    for (int i = 0; i < kUnits; i++) {
      const int k = first + i * kUnit, box = k / c.pixel_bytes;
      offset[i] = (box * kRows + row) * c.pixel_bytes + k % c.pixel_bytes;
    }
  }

  __device__ __forceinline__ void start(const GemmCall& c, int64_t tile_row) {
    if (!is_needed) return;
    origin = window_origin(c, tile_row + row, 0);
#pragma unroll
    for (int i = 0; i < kUnits; i++) {
      place[i] = {0, 0, 0};
      place[i].advance(c, first + i * kUnit);
    }
  }

  // A pixel's bytes are filled as a whole, so their swizzle does not matter.
  __device__ __forceinline__ void fill(const GemmCall& c, uint32_t stage, int consumer) {
    if (!is_needed) return;
#pragma unroll
    for (int i = 0; i < kUnits; i++) {
      if (!is_inside(c.windows, origin, place[i])) {
        auto* to = static_cast<uint4*>(__cvta_shared_to_generic(stage + offset[i]));
        to[0] = to[1] = {codes, codes, codes, codes};
      }
      place[i].advance(c, 128);
    }
    ptx::fence_before_wgmma();
    ptx::group_sync(1 + consumer, 128);
  }
};

}  // namespace fastinfer::cuda
