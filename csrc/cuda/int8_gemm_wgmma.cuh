// int8 GEMM on wgmma (sm_90a): one warpgroup fills a ring of stages, the others multiply.
//
// Blocks are persistent: while the last tile's results are stored, stages of the next are on their
// way. Tiles of A and B come by bulk copies, those of an image's windows in im2col mode. Blocks of
// a cluster compute tiles below each other and copy the B they share once.
//
// A stage of A is boxes of pixel_bytes of K, each [rows][pixel_bytes], as many as 128 bytes hold;
// of a matrix one box.
#pragma once

#include "epilogue.cuh"
#include "mma.cuh"
#include "padding_fill.cuh"
#include "tile_order.cuh"
#include "windows.cuh"

namespace fastinfer::cuda {

constexpr int kWarpgroup = 128;  // threads

template <int kConsumersIn, int kBlockNIn, int kClusterIn, RowSource kSourceIn>
struct WgmmaTile {
  static constexpr RowSource kSource = kSourceIn;
  static constexpr int kConsumers = kConsumersIn, kCluster = kClusterIn;
  static constexpr int kBlockM = 64 * kConsumers, kBlockN = kBlockNIn, kBlockK = 128;
  static constexpr int kThreads = kWarpgroup * (1 + kConsumers);
  static constexpr int kBytesA = kBlockM * kBlockK, kBytesB = kBlockN * kBlockK;
  static constexpr int kStageBytes = kBytesA + kBytesB;
  static constexpr int kSharedLimit = 227 * 1024, kBarrierBytes = 256;
  static constexpr int kFitting = (kSharedLimit - kBarrierBytes) / kStageBytes;
  static constexpr int kStages = kFitting < 8 ? kFitting : 8;
  static constexpr int kSharedBytes = kStages * kStageBytes + kBarrierBytes;
  static constexpr bool kIsMatrix = kSource == RowSource::kMatrix;
  // Per thread; with two consumers a multiprocessor has 512 for the three groups.
  static constexpr int kCopyRegisters = 40, kMultiplyRegisters = 232;
  static_assert(kBlockN % 32 == 0 && kBlockN % kCluster == 0 && kStages >= 3);
  static_assert(2 * 8 * kStages <= kBarrierBytes);
  static_assert(kSource == RowSource::kMatrix || kSource == RowSource::kPixels);
};

// Addresses of the two barriers of a stage: its bytes are there; nobody reads them any more.
template <class Tile>
struct Ring {
  uint32_t base;
  int stage = 0;
  uint32_t phase = 0;

  __device__ __forceinline__ uint32_t a() const { return base + stage * Tile::kStageBytes; }
  __device__ __forceinline__ uint32_t b() const { return a() + Tile::kBytesA; }
  __device__ __forceinline__ uint32_t full(int at) const {
    return base + Tile::kStages * Tile::kStageBytes + at * 8;
  }
  __device__ __forceinline__ uint32_t empty(int at) const { return full(at) + Tile::kStages * 8; }
  __device__ __forceinline__ void advance() {
    if (++stage == Tile::kStages) {
      stage = 0;
      phase ^= 1;
    }
  }
};

// The tiles of one block, in order.
template <class Tile>
struct TileWalk {
  int32_t m_tiles, n_tiles, per_group, count;  // m_tiles: of a whole cluster
  int32_t unit;

  __device__ __forceinline__ TileWalk(const GemmCall& c)
      : m_tiles(static_cast<int32_t>((c.m + Tile::kBlockM * Tile::kCluster - 1) /
                                     (Tile::kBlockM * Tile::kCluster))),
        n_tiles((c.n + Tile::kBlockN - 1) / Tile::kBlockN),
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
    return {p.m * Tile::kCluster + static_cast<int32_t>(block), p.n};
  }
};

// The boxes of A of one tile of windows, stage after stage.
template <class Tile>
struct PixelBoxes {
  int32_t image, y, x, group;
  WindowPlace place{0, 0, 0};

  __device__ __forceinline__ PixelBoxes(const GemmCall& c, int32_t tile_m, int32_t group_in)
      : group(group_in) {
    const Windows& w = c.windows;
    const uint32_t pixel = static_cast<uint32_t>(tile_m) * Tile::kBlockM;
    const uint32_t line = pixel / w.out_width;
    image = static_cast<int32_t>(line / w.out_height);
    y = static_cast<int32_t>(line % w.out_height) * w.stride_h - w.pad_h;
    x = static_cast<int32_t>(pixel % w.out_width) * w.stride_w - w.pad_w;
  }

  __device__ __forceinline__ void copy(const GemmCall& c, const CUtensorMap& map, uint32_t to,
                                       uint32_t full, int boxes) {
    for (int i = 0; i < boxes; i++) {
      ptx::load_pixels(to + i * Tile::kBlockM * c.pixel_bytes, map, full,
                       group * c.run + place.channel, x, y, image,
                       place.column * c.windows.dilation_w, place.row * c.windows.dilation_h);
      place.advance(c, c.pixel_bytes);
    }
  }
};

// One thread: boxes of A and B.
template <class Tile>
__device__ __forceinline__ void copy_boxes(const GemmCall& c, const CUtensorMap& a_map,
                                           const CUtensorMap& b_map, Ring<Tile> ring, int blocks,
                                           uint32_t block_rank) {
  constexpr int kShare = Tile::kBlockN / Tile::kCluster;  // rows of B this block brings to all
  const int whole = Tile::kBlockK / c.pixel_bytes;        // boxes of windows in a stage
  const int last = (c.k_padded - (blocks - 1) * Tile::kBlockK) / c.pixel_bytes;
  for (TileWalk<Tile> walk(c); walk.more(); walk.next()) {
    const TilePlace tile = walk.place(block_rank);
    PixelBoxes<Tile> pixels(c, Tile::kIsMatrix ? 0 : tile.m, walk.group());
    const int32_t row = walk.group() * c.n_padded + tile.n * Tile::kBlockN;
    for (int block = 0; block < blocks; block++, ring.advance()) {
      const uint32_t full = ring.full(ring.stage);
      const int32_t k = block * Tile::kBlockK;
      ptx::mbarrier_wait(ring.empty(ring.stage), ring.phase ^ 1);
      if constexpr (Tile::kIsMatrix) {
        ptx::mbarrier_arrive_expect(full, Tile::kStageBytes);
        ptx::load_box(ring.a(), a_map, full, k, tile.m * Tile::kBlockM);
      } else {
        const int boxes = block + 1 == blocks ? last : whole;
        ptx::mbarrier_arrive_expect(full,
                                    Tile::kBytesB + boxes * Tile::kBlockM * c.pixel_bytes);
        pixels.copy(c, a_map, ring.a(), full, boxes);
      }
      if constexpr (Tile::kCluster == 1) {
        ptx::load_box(ring.b(), b_map, full, k, row);
      } else {
        const int32_t first = static_cast<int32_t>(block_rank) * kShare;
        ptx::load_box_to_all(ring.b() + first * Tile::kBlockK, b_map, full, k, row + first,
                             (1u << Tile::kCluster) - 1);
      }
    }
  }
}

template <class Tile>
__device__ __forceinline__ void release(const Ring<Tile>& ring, int stage, int lane) {
  if constexpr (Tile::kCluster == 1) {
    if (lane == 0) ptx::mbarrier_arrive(ring.empty(stage));
  } else {
    if (lane < Tile::kCluster) {
      ptx::mbarrier_arrive_at(ring.empty(stage), static_cast<uint32_t>(lane));
    }
  }
}

template <int kPanel, int kCount>
__device__ __forceinline__ void copy_panel(const int32_t (&acc)[kCount], int32_t (&panel)[16]) {
  if constexpr (16 * kPanel < kCount) {
#pragma unroll
    for (int v = 0; v < 16; v++) panel[v] = acc[16 * kPanel + v];
  }
}

// A lane's accumulators of the 32 columns from 32 j on. Registers cannot be indexed: a jump.
template <int kCount>
__device__ __forceinline__ void take_panel(const int32_t (&acc)[kCount], int j,
                                           int32_t (&panel)[16]) {
  static_assert(kCount <= 8 * 16);
  switch (j) {
    case 0: return copy_panel<0>(acc, panel);
    case 1: return copy_panel<1>(acc, panel);
    case 2: return copy_panel<2>(acc, panel);
    case 3: return copy_panel<3>(acc, panel);
    case 4: return copy_panel<4>(acc, panel);
    case 5: return copy_panel<5>(acc, panel);
    case 6: return copy_panel<6>(acc, panel);
    default: return copy_panel<7>(acc, panel);
  }
}

// Any results: a loop over panels, not written out, as that is 100 KB of code.
template <int kCount>
__device__ __forceinline__ void store_any(const Epilogue& e, const int32_t (&acc)[kCount],
                                          int64_t row, int column) {
#pragma unroll 1
  for (int j = 0; j < kCount / 16; j++) {
    ChannelValues values;
    if (!load_channels(e, column + j * 32, values)) return;
    load_residual_channels(e, column + j * 32, values);
    int32_t panel[16];
    take_panel(acc, j, panel);
#pragma unroll
    for (int half = 0; half < 2; half++) {
      int32_t sums[kLaneChannels];
#pragma unroll
      for (int v = 0; v < kLaneChannels; v++) sums[v] = panel[v / 2 * 4 + half * 2 + v % 2];
      store_channels(e, values, row + half * 8, column + j * 32, sums);
    }
  }
}

// A warpgroup: 64 rows of every tile.
template <class Tile>
__device__ __forceinline__ void multiply(const GemmCall& c, Ring<Tile> ring, int blocks,
                                         uint32_t block_rank, int consumer) {
  const int thread = static_cast<int>(threadIdx.x) % kWarpgroup;
  const int warp = thread / 32, lane = thread % 32;
  Epilogue e = read_epilogue(c);
  take_ranges(e, c);
  const uint32_t row_bytes = Tile::kIsMatrix ? 128 : static_cast<uint32_t>(c.pixel_bytes);
  // From the rows of 32 bytes of K to those of the next 32 and of the 64 behind: units of 16 bytes.
  const auto k_offset = [row_bytes](uint32_t k) {
    return (k / row_bytes * Tile::kBlockM * row_bytes + k % row_bytes) >> 4;
  };
  const uint32_t next_32 = k_offset(32), next_64 = k_offset(64);
  PaddingFill<Tile::kBlockM> padding(c, thread, consumer * 64);
  // On the way to L2: what the epilogue of a tile reads.
  const auto prefetch = [&](const TilePlace& tile) {
    prefetch_epilogue<64, Tile::kBlockN, kWarpgroup>(
        e, int64_t{tile.m} * Tile::kBlockM + consumer * 64, tile.n * Tile::kBlockN, thread);
  };
  TileWalk<Tile> walk(c);
  if constexpr (Tile::kIsMatrix) prefetch(walk.place(block_rank));
  for (; walk.more(); walk.next()) {
    const TilePlace tile = walk.place(block_rank);
    int32_t acc[Tile::kBlockN / 2];
    int previous = 0;
    if constexpr (!Tile::kIsMatrix) e.set_group(walk.group(), c.n_padded);
    const int64_t row0 = int64_t{tile.m} * Tile::kBlockM + consumer * 64;
    const int first_column = tile.n * Tile::kBlockN + lane % 4 * kLaneChannels;
    if constexpr (!Tile::kIsMatrix) prefetch(tile);
    if constexpr (!Tile::kIsMatrix) padding.start(c, row0, thread);
    for (int block = 0; block < blocks; block++) {
      ptx::mbarrier_wait(ring.full(ring.stage), ring.phase);
      if constexpr (!Tile::kIsMatrix) padding.fill(c, ring.a(), consumer);
      const uint64_t a = ptx::wgmma_descriptor(ring.a() + consumer * 64 * row_bytes, row_bytes);
      const uint64_t b = ptx::wgmma_descriptor(ring.b());
      ptx::wgmma_fence();
#pragma unroll
      for (int step = 0; step < Tile::kBlockK / 32; step++) {
        const uint64_t from = a + step % 2 * next_32 + step / 2 * next_64;
        ptx::wgmma_u8s8<Tile::kBlockN>(acc, from, b + 2 * step, block != 0 || step != 0);
      }
      ptx::wgmma_commit();
      // One group stays in flight; the stage of the one before is free.
      ptx::wgmma_wait<1>();
      if (block != 0) release(ring, previous, lane);
      previous = ring.stage;
      ring.advance();
    }
    if constexpr (Tile::kIsMatrix) {  // while the last products run
      TileWalk<Tile> after = walk;
      after.next();
      if (after.more()) prefetch(after.place(block_rank));
    }
    ptx::wgmma_wait<0>();
    release(ring, previous, lane);

    const int64_t row = row0 + warp * 16 + lane / 4;
    if (e.is_wide && e.is_small && !e.float_output && e.table == nullptr) {
      store_panels(e, acc, row, tile.n * Tile::kBlockN, first_column);
    } else {
      store_any(e, acc, row, first_column);
    }
  }
}

template <class Tile>
__global__ void __launch_bounds__(Tile::kThreads, 1)
    int8_gemm_wgmma(const __grid_constant__ GemmCall c, const __grid_constant__ CUtensorMap a_map,
                    const __grid_constant__ CUtensorMap b_map) {
  extern __shared__ __align__(1024) uint8_t stages[];
  const Ring<Tile> ring{ptx::shared_address(stages)};
  if (ring.base % 1024 != 0) __trap();  // what the swizzle of copies and products counts from
  const int blocks = (c.k_padded + Tile::kBlockK - 1) / Tile::kBlockK;
  uint32_t block_rank = 0;
  if constexpr (Tile::kCluster > 1) block_rank = ptx::block_in_cluster();

  if (threadIdx.x == 0) {
    ptx::prefetch_map(b_map);
    ptx::prefetch_map(a_map);
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
    if (threadIdx.x == 0) copy_boxes<Tile>(c, a_map, b_map, ring, blocks, block_rank);
    __syncwarp();
  } else {
    if constexpr (Tile::kConsumers == 2) ptx::raise_registers<Tile::kMultiplyRegisters>();
    multiply<Tile>(c, ring, blocks, block_rank, warpgroup - 1);
  }
  // No block leaves while others still write to its barriers.
  if constexpr (Tile::kCluster > 1) ptx::cluster_sync();
}

}  // namespace fastinfer::cuda
