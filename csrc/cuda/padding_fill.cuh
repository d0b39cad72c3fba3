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
  uint32_t first, second;  // where they are in a stage, in the order in which they are filled
  WindowOrigin origin;
  WindowPlace place;
  bool is_needed, is_swapped;

  PaddingFill() = default;

  __device__ __forceinline__ PaddingFill(const GemmCall& c, int thread, int first_row) {
    const int32_t zero_point = reinterpret_cast<const PackedHeader*>(c.packed)->x_zero_point;
    is_needed = zero_point != 0 && (c.windows.pad_h | c.windows.pad_w) != 0;
    codes = static_cast<uint32_t>(zero_point) * 0x01010101u;
    const int row = first_row + thread / 2, k = thread % 2 * 2 * kUnit;
    const auto offset = [&](int at) {
      return static_cast<uint32_t>((at / c.pixel_bytes * kRows + row) * c.pixel_bytes +
                                   at % c.pixel_bytes);
    };
    // The order of a thread's four times 16 bytes: such that eight neighbouring threads, of four
    // rows, write to all banks each time.
    const int half = thread % 2;
    const int turn = c.pixel_bytes == 128 ? row % 4
                     : c.pixel_bytes == 64 ? row / 2 % 2 * 2 + half
                                           : half;
    is_swapped = turn / 2 != 0;
    const uint32_t behind = turn % 2 * 16;
    first = offset(is_swapped ? k + kUnit : k) + behind;
    second = offset(is_swapped ? k : k + kUnit) + behind;
  }

  __device__ __forceinline__ void start(const GemmCall& c, int64_t tile_row, int thread) {
    if (!is_needed) return;
    origin = window_origin(c, tile_row + thread / 2, 0);
    place = {0, 0, 0};
    place.advance(c, thread % 2 * 2 * kUnit);
    __syncwarp();
  }

  // A warpgroup's own rows: what it multiplies, alone.
  __device__ __forceinline__ void fill(const GemmCall& c, uint32_t stage, int consumer) {
    if (!is_needed) return;
    write(c, stage);
    ptx::fence_before_wgmma();
    __syncwarp();
    ptx::group_sync(1 + consumer, 128);
  }

  // A pixel's bytes are filled as a whole, so their swizzle does not matter.
  __device__ __forceinline__ void write(const GemmCall& c, uint32_t stage) {
    const bool is_low = is_inside(c.windows, origin, place);
    place.advance(c, kUnit);
    const bool is_high = is_inside(c.windows, origin, place);
    place.advance(c, 128 - kUnit);
    // A stage begins at a whole kUnit, so its two halves differ in one bit.
    const auto fill_unit = [&](uint32_t at) {
      *static_cast<uint4*>(__cvta_shared_to_generic(at)) = {codes, codes, codes, codes};
      *static_cast<uint4*>(__cvta_shared_to_generic(at ^ 16)) = {codes, codes, codes, codes};
    };
    if (!(is_swapped ? is_high : is_low)) fill_unit(stage + first);
    if (!(is_swapped ? is_low : is_high)) fill_unit(stage + second);
  }
};

}  // namespace fastinfer::cuda
