// int8 GEMM with 2:4 sparse weights on wgmma.sp (sm_90a): persistent blocks and a ring of stages as
// in int8_gemm_wgmma.cuh, of which this takes the ring, and how windows are walked.
//
// Sparse tensor cores want the sparse factor first: a tile is kBlockN channels, 64 a warpgroup,
// times kBlockM pixels. Blocks of a cluster have other channels of the same pixels, and each copies
// its share of the pixels to all.
//
// A stage is the pixels' boxes of K, 128 bytes of it, then for every warpgroup an image of 64 rows
// (pack_two_of_four.h).
#pragma once

#include "int8_gemm_wgmma.cuh"
#include "pack_two_of_four.h"
#include "sparse_epilogue.cuh"

namespace fastinfer::cuda {

template <int kConsumersIn, int kBlockMIn, int kClusterIn, RowSource kSourceIn>
struct SparseTile {
  static constexpr RowSource kSource = kSourceIn;
  static constexpr int kConsumers = kConsumersIn, kCluster = kClusterIn;
  static constexpr int kBlockM = kBlockMIn, kBlockN = 64 * kConsumers, kBlockK = 128;
  static constexpr int kThreads = kWarpgroup * (1 + kConsumers);
  static constexpr int kShare = kBlockM / kCluster;  // pixels that a block copies
  static constexpr int kBytesA = kBlockM * kBlockK, kBytesB = kConsumers * kTwoOfFourBytes;
  static constexpr int kStageBytes = kBytesA + kBytesB;
  static constexpr int kResultBytes = kConsumers * kTurnBytes;
  static constexpr int kSharedLimit = 227 * 1024, kBarrierBytes = 256;
  static constexpr int kFitting = (kSharedLimit - kBarrierBytes - kResultBytes) / kStageBytes;
  static constexpr int kStages = kFitting < 8 ? kFitting : 8;
  static constexpr int kResultsAt = kStages * kStageBytes + kBarrierBytes;
  static constexpr int kSharedBytes = kResultsAt + kResultBytes;
  static constexpr bool kIsMatrix = kSource == RowSource::kMatrix;
  static constexpr int kFills = kBlockM / 64 / kConsumers;  // of 64 rows, for each warpgroup
  static constexpr int kCopyRegisters = 40, kMultiplyRegisters = 232;
  static_assert(kStageBytes % 1024 == 0 && kStages >= 3 && 2 * 8 * kStages <= kBarrierBytes);
  static_assert(kBlockM % 64 == 0 && kShare % 8 == 0 && kFills * 64 * kConsumers == kBlockM);
  static_assert(kSource == RowSource::kMatrix || kSource == RowSource::kPixels);
};

// The tiles of one block, in order.
template <class Tile>
struct SparseWalk {
  int32_t m_tiles, n_tiles, per_group, count;  // n_tiles: of a whole cluster
  int32_t unit;

  __device__ __forceinline__ SparseWalk(const GemmCall& c)
      : m_tiles(static_cast<int32_t>((c.m + Tile::kBlockM - 1) / Tile::kBlockM)),
        n_tiles((c.n + Tile::kBlockN * Tile::kCluster - 1) / (Tile::kBlockN * Tile::kCluster)),
        per_group(m_tiles * n_tiles),
        count(per_group * c.groups),
        unit(static_cast<int32_t>(blockIdx.x) / Tile::kCluster) {}

  __device__ __forceinline__ bool more() const { return unit < count; }
  __device__ __forceinline__ void next() {
    unit += static_cast<int32_t>(gridDim.x) / Tile::kCluster;
  }
  __device__ __forceinline__ int32_t group() const { return unit / per_group; }
  __device__ __forceinline__ TilePlace place(uint32_t block) const {
    const TilePlace p = tile_place(unit % per_group, m_tiles, n_tiles);
    return {p.m, p.n * Tile::kCluster + static_cast<int32_t>(block)};
  }
};

// A block's share of a tile's pixels, as the walk of int8_gemm_wgmma.cuh counts rows.
template <class Tile>
struct ShareOfPixels {
  static constexpr int kBlockM = Tile::kShare;
};

// One thread: boxes of pixels, to all blocks of the cluster, and images of weights.
template <class Tile>
__device__ __forceinline__ void copy_sparse_boxes(const GemmCall& c, const CUtensorMap& x_map,
                                                  const CUtensorMap& weight_map, Ring<Tile> ring,
                                                  int blocks, uint32_t block_rank) {
  constexpr int kImageRows = kTwoOfFourBytes / 128;
  constexpr uint16_t kAll = (1u << Tile::kCluster) - 1;
  const int whole = Tile::kBlockK / c.pixel_bytes;  // boxes of windows in a stage
  const int last = (c.k_padded - (blocks - 1) * Tile::kBlockK) / c.pixel_bytes;
  const int32_t panels = (c.n + kTwoOfFourPanel - 1) / kTwoOfFourPanel;
  const auto rank = static_cast<int32_t>(block_rank);
  for (SparseWalk<Tile> walk(c); walk.more(); walk.next()) {
    const TilePlace tile = walk.place(block_rank);
    PixelBoxes<ShareOfPixels<Tile>> pixels(
        c, Tile::kIsMatrix ? 0 : tile.m * Tile::kCluster + rank, walk.group());
    for (int block = 0; block < blocks; block++, ring.advance()) {
      const uint32_t full = ring.full(ring.stage);
      ptx::mbarrier_wait(ring.empty(ring.stage), ring.phase ^ 1);
      if constexpr (Tile::kIsMatrix) {
        ptx::mbarrier_arrive_expect(full, Tile::kStageBytes);
        const uint32_t to = ring.a() + rank * Tile::kShare * Tile::kBlockK;
        const int32_t k = block * Tile::kBlockK;
        const int32_t row = tile.m * Tile::kBlockM + rank * Tile::kShare;
        if constexpr (Tile::kCluster == 1) {
          ptx::load_box(to, x_map, full, k, row);
        } else {
          ptx::load_box_to_all(to, x_map, full, k, row, kAll);
        }
      } else {
        const int boxes = block + 1 == blocks ? last : whole;
        ptx::mbarrier_arrive_expect(full, Tile::kBytesB + boxes * Tile::kBlockM * c.pixel_bytes);
        for (int i = 0; i < boxes; i++) {
          const uint32_t to =
              ring.a() + (i * Tile::kBlockM + rank * Tile::kShare) * c.pixel_bytes;
          const WindowPlace& at = pixels.place;
          const int32_t channel = pixels.group * c.run + at.channel;
          const int32_t off_w = at.column * c.windows.dilation_w;
          const int32_t off_h = at.row * c.windows.dilation_h;
          if constexpr (Tile::kCluster == 1) {
            ptx::load_pixels(to, x_map, full, channel, pixels.x, pixels.y, pixels.image, off_w,
                             off_h);
          } else {
            ptx::load_pixels_to_all(to, x_map, full, channel, pixels.x, pixels.y, pixels.image,
                                    off_w, off_h, kAll);
          }
          pixels.place.advance(c, c.pixel_bytes);
        }
      }
#pragma unroll
      for (int i = 0; i < Tile::kConsumers; i++) {
        // Beyond the last panel it comes again: places that are all zero are none.
        const int32_t panel = min(tile.n * Tile::kConsumers + i, panels - 1);
        const int32_t image = (walk.group() * panels + panel) * blocks + block;
        ptx::load_box(ring.b() + i * kTwoOfFourBytes, weight_map, full, 0, image * kImageRows);
      }
    }
  }
}

// Any results: a loop over 32 pixels, not written out.
template <int kPixels, int kCount>
__device__ __forceinline__ void store_each(const SparseEpilogue& s, const int32_t (&acc)[kCount],
                                           const TwoChannels& v, int64_t row0, int32_t column,
                                           int channel, int lane) {
  const Epilogue& e = s.e;
#pragma unroll 1
  for (int i = 0; i < kPixels / kTurnPixels; i++) {
    int32_t panel[16];
    take_panel(acc, i, panel);
#pragma unroll
    for (int j = 0; j < 16; j++) {
      const int half = j / 2 % 2;
      const int64_t row = row0 + i * kTurnPixels + j / 4 * 8 + lane % 4 * 2 + j % 2;
      if (row < e.m && channel + half < e.n) {
        store_one(s, panel[j], v.bias[half], v.multiplier[half], v.residual_multiplier[half],
                  row * e.ldc + column + half);
      }
    }
  }
}

// A warpgroup's results: 64 channels from `first` of the group on, kPixels rows from row0 on. v: of
// the lane's two channels from `channel` on.
template <int kPixels, int kCount>
__device__ __forceinline__ void store_sparse(const SparseEpilogue& s, const int32_t (&acc)[kCount],
                                             const TwoChannels& v, uint32_t turn, int barrier,
                                             int64_t row0, int first, int channel, int thread) {
  if (first >= s.e.n) return;
  if (s.is_wide && s.e.is_small && !s.e.float_output && s.e.table == nullptr) {
    store_turns<kPixels>(s, acc, turn, barrier, v, row0, s.e.first_channel + first, first, thread);
  } else {
    store_each<kPixels>(s, acc, v, row0, s.e.first_channel + channel, channel, thread % 32);
  }
}

// A warpgroup: 64 channels of every tile.
template <class Tile>
__device__ __forceinline__ void multiply_sparse(const GemmCall& c, Ring<Tile> ring, int blocks,
                                                uint32_t block_rank, int consumer) {
  const int thread = static_cast<int>(threadIdx.x) % kWarpgroup, lane = thread % 32;
  const uint32_t row_bytes = Tile::kIsMatrix ? 128 : static_cast<uint32_t>(c.pixel_bytes);
  // From the pixels' first 64 bytes of K to the next: units of 16 bytes.
  const uint32_t next_64 = (row_bytes == 128 ? 64 : Tile::kBlockM * 64) >> 4;
  SparseEpilogue s = read_sparse_epilogue(c);
  const int first_fill = consumer * Tile::kFills * 64;
  PaddingFill<Tile::kBlockM> padding[Tile::kFills] = {};
  if constexpr (!Tile::kIsMatrix) {
#pragma unroll
    for (int i = 0; i < Tile::kFills; i++) {
      padding[i] = PaddingFill<Tile::kBlockM>(c, thread, first_fill + i * 64);
    }
  }
  for (SparseWalk<Tile> walk(c); walk.more(); walk.next()) {
    const TilePlace tile = walk.place(block_rank);
    int32_t acc[Tile::kBlockM / 2];
    const int64_t row0 = int64_t{tile.m} * Tile::kBlockM;
    if constexpr (!Tile::kIsMatrix) s.e.set_group(walk.group(), c.n_padded);
    const int first = tile.n * Tile::kBlockN + consumer * 64;
    // What the epilogue reads is there, or on its way to L2, before the products are done.
    prefetch_epilogue<Tile::kBlockM, 64, kWarpgroup>(s.e, row0, first, thread);
    const int channel = first + thread / 32 * 16 + lane / 4 * 2;  // of rows lane / 4 and 8 on
    const TwoChannels v = load_two(s.e, s.e.first_value, channel);
    if constexpr (!Tile::kIsMatrix) {
#pragma unroll
      for (int i = 0; i < Tile::kFills; i++) {
        padding[i].start(c, row0 + first_fill + i * 64, thread);
      }
    }
    for (int block = 0; block < blocks; block++) {
      ptx::mbarrier_wait(ring.full(ring.stage), ring.phase);
      if constexpr (!Tile::kIsMatrix) {
        if (padding[0].is_needed) {  // of all warpgroups' pixels, as each multiplies them all
#pragma unroll
          for (int i = 0; i < Tile::kFills; i++) padding[i].write(c, ring.a());
          ptx::fence_before_wgmma();
          __syncwarp();
          ptx::group_sync(1, kWarpgroup * Tile::kConsumers);
        }
      }
      const uint32_t image = ring.b() + consumer * kTwoOfFourBytes;
      const uint2 places = ptx::load_shared_8(image + 64 * 64 + thread * 8);
      const uint64_t weights = ptx::wgmma_descriptor(image, 64);
      const uint64_t pixels = ptx::wgmma_descriptor(ring.a(), row_bytes);
      ptx::wgmma_fence();
      ptx::wgmma_sparse_s8u8<Tile::kBlockM>(acc, weights, pixels, places.x, block != 0);
      ptx::wgmma_sparse_s8u8<Tile::kBlockM>(acc, weights + 2, pixels + next_64, places.y, true);
      ptx::wgmma_commit();
      // The tensor cores read `places` while they multiply, so no group stays in flight: on an H100 the
      // next stage's places came into the registers of the last one's. Other warpgroups multiply now.
      ptx::wgmma_wait<0>();
      release(ring, ring.stage, lane);
      ring.advance();
    }
    const uint32_t turn = ring.base + Tile::kResultsAt + consumer * kTurnBytes;
    store_sparse<Tile::kBlockM>(s, acc, v, turn, 2 + consumer, row0, first, channel, thread);
  }
}

template <class Tile>
__global__ void __launch_bounds__(Tile::kThreads, 1)
    int8_sparse_wgmma(const __grid_constant__ GemmCall c, const __grid_constant__ CUtensorMap x_map,
                      const __grid_constant__ CUtensorMap weight_map) {
  extern __shared__ __align__(1024) uint8_t stages[];
  const Ring<Tile> ring{ptx::shared_address(stages)};
  if (ring.base % 1024 != 0) __trap();  // what the swizzle of copies and products counts from
  const int blocks = (c.k_padded + Tile::kBlockK - 1) / Tile::kBlockK;
  uint32_t block_rank = 0;
  if constexpr (Tile::kCluster > 1) block_rank = ptx::block_in_cluster();

  if (threadIdx.x == 0) {
    ptx::prefetch_map(weight_map);
    ptx::prefetch_map(x_map);
    for (int i = 0; i < Tile::kStages; i++) {
      ptx::mbarrier_init(ring.full(i), 1);
      ptx::mbarrier_init(ring.empty(i), Tile::kConsumers * 4 * Tile::kCluster);  // a warp each
    }
    ptx::mbarrier_init_fence();
  }
  if constexpr (Tile::kCluster > 1) {
    ptx::cluster_sync();
  } else {
    __syncthreads();
  }

  const int warpgroup = static_cast<int>(threadIdx.x) / kWarpgroup;
  if (warpgroup == 0) {
    if constexpr (Tile::kConsumers == 2) ptx::lower_registers<Tile::kCopyRegisters>();
    if (threadIdx.x == 0) {
      copy_sparse_boxes<Tile>(c, x_map, weight_map, ring, blocks, block_rank);
    }
    __syncwarp();
  } else {
    if constexpr (Tile::kConsumers == 2) ptx::raise_registers<Tile::kMultiplyRegisters>();
    multiply_sparse<Tile>(c, ring, blocks, block_rank, warpgroup - 1);
  }
  // No block leaves while others still write to its memory.
  if constexpr (Tile::kCluster > 1) ptx::cluster_sync();
}

}  // namespace fastinfer::cuda
