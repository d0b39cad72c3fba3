// Padding that is not zero: bulk copies fill with zeros what lies outside an image, and a warpgroup
// writes the zero point over it before it multiplies.
#pragma once

#include "mma.cuh"
#include "windows.cuh"

namespace fastinfer::cuda {

// For one thread of a warpgroup: half of one row of 64, in every stage.
template <int kRows>  // of a whole stage
struct PaddingFill {
  static constexpr int kUnit = 32;  // bytes that are padding or not; a thread has two of them
  uint32_t codes;
  uint32_t first, second;  // where they are in a stage
  WindowOrigin origin;
  WindowPlace place;
  bool is_needed;

  __device__ __forceinline__ PaddingFill(const GemmCall& c, int thread, int first_row) {
    const int32_t zero_point = reinterpret_cast<const PackedHeader*>(c.packed)->x_zero_point;
    is_needed = zero_point != 0 && (c.windows.pad_h | c.windows.pad_w) != 0;
    codes = static_cast<uint32_t>(zero_point) * 0x01010101u;
    const int row = first_row + thread / 2, k = thread % 2 * 2 * kUnit;
    const auto offset = [&](int at) {
      return static_cast<uint32_t>((at / c.pixel_bytes * kRows + row) * c.pixel_bytes +
                                   at % c.pixel_bytes);
    };
    first = offset(k);
    second = offset(k + kUnit);
  }

  __device__ __forceinline__ void start(const GemmCall& c, int64_t tile_row, int thread) {
    if (!is_needed) return;
    origin = window_origin(c, tile_row + thread / 2, 0);
    place = {0, 0, 0};
    place.advance(c, thread % 2 * 2 * kUnit);
    __syncwarp();
  }

  // A pixel's bytes are filled as a whole, so their swizzle does not matter.
  __device__ __forceinline__ void fill(const GemmCall& c, uint32_t stage, int consumer) {
    if (!is_needed) return;
    const auto fill_unit = [&](uint32_t at) {
      if (is_inside(c.windows, origin, place)) return;
      auto* to = static_cast<uint4*>(__cvta_shared_to_generic(stage + at));
      to[0] = to[1] = {codes, codes, codes, codes};
    };
    fill_unit(first);
    place.advance(c, kUnit);
    fill_unit(second);
    place.advance(c, 128 - kUnit);
    ptx::fence_before_wgmma();
    __syncwarp();
    ptx::group_sync(1 + consumer, 128);
  }
};

}  // namespace fastinfer::cuda
