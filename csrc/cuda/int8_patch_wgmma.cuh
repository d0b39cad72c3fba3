// Convolutions with weights of which the channels of a tile keep the same inputs, on wgmma
// (sm_90a): int8_gather_wgmma.cuh, where pixels come once for all taps. A tile is whole lines of
// outputs; the patch they read, 128 or 64 channels of every pixel, is a stage of its own, and lanes
// take the bytes of a tap from where the patch has them.
//
// Pixels follow each other, line after line; 16 bytes c of pixel p are at c ^ (p % 8), of pixels of
// 64 bytes at c ^ (p / 2 % 4).
#pragma once

#include "int8_gather_wgmma.cuh"
#include "patch.h"

namespace fastinfer::cuda {

template <int kBlockNIn>
struct PatchTile {
  static constexpr int kConsumers = 2, kCluster = 1, kPatches = 2;
  static constexpr int kBlockM = kPatchRows, kBlockN = kBlockNIn;
  static constexpr int kThreads = kWarpgroup * (1 + kConsumers);
  static constexpr int kImageBytes = gathered_block_bytes({kBlockN, 1});
  static constexpr int kStageBytes = (kImageBytes + 1023) / 1024 * 1024;
  static constexpr int kStages = 8, kBarrierBytes = 256;
  static constexpr int kRingBytes = kStages * kStageBytes + kBarrierBytes;
  static constexpr int kSharedBytes = kPatches * kPatchBytes + kRingBytes;
  static constexpr int kBytesA = 0;  // of a stage of the ring: images alone
  static constexpr int kCopyRegisters = 40, kMultiplyRegisters = 232;
  static_assert(kPatchBytes % 1024 == 0 && 2 * 8 * (kStages + kPatches) <= kBarrierBytes);
  static_assert(kSharedBytes <= 227 * 1024);
};

// The two patches, and their barriers behind those of the ring.
template <class Tile>
struct PatchRing {
  uint32_t base, barriers;
  int stage = 0;
  uint32_t phase = 0;

  __device__ __forceinline__ uint32_t at() const { return base + stage * kPatchBytes; }
  __device__ __forceinline__ uint32_t full(int i) const { return barriers + i * 16; }
  __device__ __forceinline__ uint32_t empty(int i) const { return full(i) + 8; }
  __device__ __forceinline__ void advance() {
    if (++stage == Tile::kPatches) {
      stage = 0;
      phase ^= 1;
    }
  }
};

// The tiles of one block: lines of an image, or images.
struct PatchWalk {
  int32_t of_image, m_tiles, n_tiles, unit;

  __device__ __forceinline__ PatchWalk(const GemmCall& c, const PatchShape& s, int block_n)
      : of_image((c.windows.out_height + s.rows - 1) / s.rows),
        n_tiles((c.n + block_n - 1) / block_n),
        unit(static_cast<int32_t>(blockIdx.x)) {
    const auto lines = static_cast<int32_t>(c.m / c.windows.out_width);
    const int32_t images = lines / c.windows.out_height;
    m_tiles = (images + s.images - 1) / s.images * of_image;
  }
  __device__ __forceinline__ bool more() const { return unit < m_tiles * n_tiles; }
  __device__ __forceinline__ void next() { unit += static_cast<int32_t>(gridDim.x); }
  __device__ __forceinline__ TilePlace place() const { return tile_place(unit, m_tiles, n_tiles); }
};

// Where a tile of lines is: its first image and line of outputs, and its rows of results.
struct PatchPlace {
  int32_t image, line;
  int64_t first, end;

  __device__ __forceinline__ PatchPlace(const GemmCall& c, const PatchShape& s, int32_t of_image,
                                        int32_t tile_m)
      : image(tile_m / of_image * s.images), line(tile_m % of_image * s.rows) {
    const int64_t height = c.windows.out_height, width = c.windows.out_width;
    first = (image * height + line) * width;
    const int64_t rows = min(s.rows, c.windows.out_height - line);
    end = min(first + (s.images > 1 ? s.images * height : rows) * width, c.m);
  }
};

// One thread: patches, and for each tap and part of the channels an image of weights.
template <class Tile>
__device__ __forceinline__ void copy_patches(const GemmCall& c, const PatchShape& s,
                                             const CUtensorMap& x_map,
                                             const CUtensorMap& weight_map, Ring<Tile> ring,
                                             PatchRing<Tile> patches, int blocks) {
  constexpr int kImageRows = Tile::kImageBytes / 128;
  const int chunks = c.run / s.pixel_bytes, of_chunk = blocks / chunks;
  for (PatchWalk walk(c, s, Tile::kBlockN); walk.more(); walk.next()) {
    const TilePlace tile = walk.place();
    const PatchPlace place(c, s, walk.of_image, tile.m);
    for (int chunk = 0; chunk < chunks; chunk++, patches.advance()) {
      const uint32_t full = patches.full(patches.stage);
      ptx::mbarrier_wait(patches.empty(patches.stage), patches.phase ^ 1);
      ptx::mbarrier_arrive_expect(full, s.pixels() * s.pixel_bytes);
      ptx::load_patch(patches.at(), x_map, full, chunk * s.pixel_bytes, -c.windows.pad_w,
                      place.line - c.windows.pad_h, place.image);
      for (int i = 0; i < of_chunk; i++, ring.advance()) {
        const uint32_t ready = ring.full(ring.stage);
        const int32_t image = tile.n * blocks + i * chunks + chunk;
        ptx::mbarrier_wait(ring.empty(ring.stage), ring.phase ^ 1);
        ptx::mbarrier_arrive_expect(ready, Tile::kImageBytes);
        ptx::load_box(ring.b(), weight_map, ready, 0, image * kImageRows);
      }
    }
  }
}

// Writes the input's zero point over the patch's pixels outside the image, which came as zeros.
template <class Tile>
__device__ __forceinline__ void fill_patch(const GemmCall& c, const PatchShape& s,
                                           const PatchPlace& place, uint32_t patch, int thread) {
  const uint32_t code =
      static_cast<uint32_t>(reinterpret_cast<const PackedHeader*>(c.packed)->x_zero_point) *
      0x01010101u;
  for (int i = thread; i < s.pixels(); i += kWarpgroup * Tile::kConsumers) {
    const int32_t y = i / s.width % s.height + place.line - c.windows.pad_h;
    const int32_t x = i % s.width - c.windows.pad_w;
    const bool is_inside = static_cast<uint32_t>(y) < static_cast<uint32_t>(c.windows.height) &&
                           static_cast<uint32_t>(x) < static_cast<uint32_t>(c.windows.width);
    for (int b = 0; !is_inside && b < s.pixel_bytes; b += 16) {
      // Another 16 bytes first in each pixel, so that lanes meet in fewer banks.
      const uint32_t at = (b + i * 16) % s.pixel_bytes;
      ptx::store_shared_16(patch + i * s.pixel_bytes + at, {code, code, code, code});
    }
  }
  ptx::fence_before_wgmma();  // before a copy writes here again
  __syncwarp();
  ptx::group_sync(1, kWarpgroup * Tile::kConsumers);
}

// Where a lane's row of a patch lies for one tap.
struct PatchRow {
  uint32_t at, turn;

  __device__ __forceinline__ PatchRow(uint32_t patch, uint32_t pixel, bool is_wide)
      : at(patch + pixel * (is_wide ? 128 : 64)),
        turn(is_wide ? (pixel & 7) << 4 : (pixel >> 1 & 3) << 4) {}
};

// The bytes that a lane's fragment takes of its two rows. Places of the second 64 inputs of a block
// are of the next tap where pixels are of 64 bytes: `low` and `high` are the rows of both.
template <bool kIsWide>
__device__ __forceinline__ void gather_patch(const PatchRow (&low)[2], const PatchRow (&high)[2],
                                             uint4 places, uint32_t (&a)[4]) {
  const uint32_t words[4] = {places.x, places.y, places.z, places.w};
  uint32_t byte[2][8];
#pragma unroll
  for (int i = 0; i < 8; i++) {
    const uint32_t place = i % 2 == 0 ? words[i / 2] & 0xFFFFu : words[i / 2] >> 16;
    const bool is_high = !kIsWide && place >= kGatherRows * 64;
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const uint32_t at = is_high ? high[half].at : low[half].at;
      const uint32_t turn = is_high ? high[half].turn : low[half].turn;
      // A row begins at a whole 128 or 64, so that one instruction does both.
      byte[half][i] = ptx::load_shared_byte(at | ((kIsWide ? place : place % 64) ^ turn));
    }
  }
  join_bytes(byte, a);
}

// A warpgroup: 64 rows of every tile.
template <class Tile, bool kIsWide>
__device__ __forceinline__ void multiply_patches(const GemmCall& c, const PatchShape& s,
                                                 Ring<Tile> ring, PatchRing<Tile> patches,
                                                 int blocks, int consumer) {
  const int thread = static_cast<int>(threadIdx.x) % kWarpgroup;
  const int warp = thread / 32, lane = thread % 32;
  Epilogue e = read_epilogue(c);
  const auto& h = *reinterpret_cast<const PackedHeader*>(c.packed);
  if (h.index != c.sparse || h.pixels != Tile::kBlockN) __trap();
  const bool is_filled = h.x_zero_point != 0 && (c.windows.pad_h | c.windows.pad_w) != 0;
  const int chunks = kIsWide ? c.run / 128 : 1, of_chunk = blocks / chunks;
  // The pixel that tap 0 reads for the lane's two outputs; those past the tile's read some other.
  uint32_t pixel[2];
#pragma unroll
  for (int half = 0; half < 2; half++) {
    const int output = consumer * 64 + warp * 16 + half * 8 + lane / 4;
    const int line = output / c.windows.out_width;
    const int at = (line / s.rows * s.height + line % s.rows) * s.width +
                   output % c.windows.out_width;
    pixel[half] = line < s.rows * s.images ? at : 0;
  }
  for (PatchWalk walk(c, s, Tile::kBlockN); walk.more(); walk.next()) {
    const TilePlace tile = walk.place();
    const PatchPlace place(c, s, walk.of_image, tile.m);
    int32_t acc[Tile::kBlockN / 2];
    int previous = -1;
    const int64_t row0 = place.first + consumer * 64;
    e.m = place.end;
    prefetch_epilogue<64, Tile::kBlockN, kWarpgroup>(e, row0, tile.n * Tile::kBlockN, thread);
    for (int chunk = 0; chunk < chunks; chunk++) {
      ptx::mbarrier_wait(patches.full(patches.stage), patches.phase);
      if (is_filled) {
        fill_patch<Tile>(c, s, place, patches.at(), consumer * kWarpgroup + thread);
      }
      int column = 0, line = 0;  // of the tap
      const auto next_tap = [&] {
        const int tap = line * s.width + column;
        if (++column == c.windows.kw) {
          column = 0;
          line++;
        }
        return tap;
      };
      for (int i = 0; i < of_chunk; i++) {
        ptx::mbarrier_wait(ring.full(ring.stage), ring.phase);
        const int tap = next_tap();
        const PatchRow low[2] = {{patches.at(), pixel[0] + tap, kIsWide},
                                 {patches.at(), pixel[1] + tap, kIsWide}};
        // Behind the last tap there is none, and no place of it.
        const int other = kIsWide || line == c.windows.kh ? tap : next_tap();
        const PatchRow high[2] = {{patches.at(), pixel[0] + other, kIsWide},
                                  {patches.at(), pixel[1] + other, kIsWide}};
        const uint64_t b = ptx::wgmma_descriptor(ring.b(), 32);
        uint32_t a[4];
        gather_patch<kIsWide>(
            low, high, ptx::load_shared_16(ring.b() + Tile::kBlockN * 32 + lane % 4 * 16), a);
        ptx::wgmma_fence();
        ptx::wgmma_held_u8s8<Tile::kBlockN>(acc, a, b, previous >= 0);
        ptx::wgmma_commit();
        // One group stays in flight; the stage of the one before is free.
        ptx::wgmma_wait<1>();
        if (previous >= 0) release(ring, previous, lane);
        previous = ring.stage;
        ring.advance();
      }
      // What was taken of the patch is in registers.
      __syncwarp();
      if (lane == 0) ptx::mbarrier_arrive(patches.empty(patches.stage));
      patches.advance();
    }
    ptx::wgmma_wait<0>();
    release(ring, previous, lane);

    const int64_t first_row = row0 + warp * 16 + lane / 4;
    const int column = tile.n * Tile::kBlockN + lane % 4 * kLaneChannels;
    if (e.is_wide && e.is_small && !e.float_output && e.table == nullptr) {
      store_panels(e, acc, first_row, tile.n * Tile::kBlockN, column);
    } else {
      store_any(e, acc, first_row, column);
    }
  }
}

template <class Tile, bool kIsWide>
__global__ void __launch_bounds__(Tile::kThreads, 1)
    int8_patch_wgmma(const __grid_constant__ GemmCall c, const __grid_constant__ PatchShape s,
                     const __grid_constant__ CUtensorMap x_map,
                     const __grid_constant__ CUtensorMap weight_map) {
  extern __shared__ __align__(1024) uint8_t stages[];
  const uint32_t base = ptx::shared_address(stages);
  if (base % 1024 != 0) __trap();  // what the swizzle of copies and products counts from
  const Ring<Tile> ring{base + Tile::kPatches * kPatchBytes};
  const PatchRing<Tile> patches{base, ring.full(2 * Tile::kStages)};
  const int blocks = (c.k_padded + 127) / 128;
  if (threadIdx.x == 0) {
    ptx::prefetch_map(weight_map);
    ptx::prefetch_map(x_map);
    for (int i = 0; i < Tile::kStages; i++) {
      ptx::mbarrier_init(ring.full(i), 1);
      ptx::mbarrier_init(ring.empty(i), Tile::kConsumers * 4);  // a warp each
    }
    for (int i = 0; i < Tile::kPatches; i++) {
      ptx::mbarrier_init(patches.full(i), 1);
      ptx::mbarrier_init(patches.empty(i), Tile::kConsumers * 4);
    }
    ptx::mbarrier_init_fence();
  }
  __syncthreads();
  const int warpgroup = static_cast<int>(threadIdx.x) / kWarpgroup;
  if (warpgroup == 0) {
    ptx::lower_registers<Tile::kCopyRegisters>();
    if (threadIdx.x == 0) copy_patches<Tile>(c, s, x_map, weight_map, ring, patches, blocks);
    __syncwarp();
  } else {
    ptx::raise_registers<Tile::kMultiplyRegisters>();
    multiply_patches<Tile, kIsWide>(c, s, ring, patches, blocks, warpgroup - 1);
  }
}

}  // namespace fastinfer::cuda
