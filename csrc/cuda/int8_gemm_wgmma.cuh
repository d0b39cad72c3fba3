// int8 GEMM on wgmma (sm_90a): one warpgroup fills a ring of stages, the others multiply.
//
// Blocks are persistent: while the last tile's results are stored, stages of the next are on their
// way. Tiles of B, and of A where it is a matrix, come by bulk copies; the windows of an image by
// cp.async. Blocks of a cluster compute tiles below each other and copy the B they share once.
#pragma once

#include "epilogue.cuh"
#include "mma.cuh"
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
  static constexpr int kWindowRows = kBlockM / 16;  // that a thread of the copying group fills
  // Copies of windows under way before the first of them is waited for.
  static constexpr int kLag = kStages / 2;
  static constexpr bool kIsMatrix = kSource == RowSource::kMatrix;
  // Per thread; with two consumers a multiprocessor has 512 for the three groups.
  static constexpr int kCopyRegisters = kIsMatrix ? 40 : 88;
  static constexpr int kMultiplyRegisters = kIsMatrix ? 232 : 208;
  static_assert(kBlockN % 32 == 0 && kBlockN % kCluster == 0 && kStages > kLag);
  static_assert(2 * 8 * kStages <= kBarrierBytes);
  static_assert(kCluster == 1 || kIsMatrix);
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

// One thread: boxes of A and B.
template <class Tile>
__device__ __forceinline__ void copy_boxes(const GemmCall& c, const CUtensorMap& a_map,
                                           const CUtensorMap& b_map, Ring<Tile> ring, int blocks,
                                           uint32_t block_rank) {
  constexpr int kShare = Tile::kBlockN / Tile::kCluster;  // rows of B this block brings to all
  for (TileWalk<Tile> walk(c); walk.more(); walk.next()) {
    const TilePlace tile = walk.place(block_rank);
    for (int block = 0; block < blocks; block++, ring.advance()) {
      const uint32_t full = ring.full(ring.stage);
      ptx::mbarrier_wait(ring.empty(ring.stage), ring.phase ^ 1);
      ptx::mbarrier_arrive_expect(full, Tile::kStageBytes);
      const int32_t k = block * Tile::kBlockK, row = tile.n * Tile::kBlockN;
      ptx::load_box(ring.a(), a_map, full, k, tile.m * Tile::kBlockM);
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

// A warpgroup: windows of an image into A, swizzled as a bulk copy would; boxes of B.
template <class Tile>
__device__ __forceinline__ void copy_windows(const GemmCall& c, const CUtensorMap& b_map,
                                             Ring<Tile> ring, int blocks) {
  const int thread = static_cast<int>(threadIdx.x) % kWarpgroup, chunk = thread % 8;
  int waiting = 0, oldest = 0;  // stages copied and not yet announced
  const auto announce = [&] {
    ptx::fence_before_wgmma();
    ptx::mbarrier_arrive(ring.full(oldest));
    oldest = oldest + 1 == Tile::kStages ? 0 : oldest + 1;
    waiting--;
  };
  for (TileWalk<Tile> walk(c); walk.more(); walk.next()) {
    const TilePlace tile = walk.place(0);
    const int32_t group = walk.group();
    WindowOrigin origin[Tile::kWindowRows];
#pragma unroll
    for (int i = 0; i < Tile::kWindowRows; i++) {
      origin[i] = window_origin(c, int64_t{tile.m} * Tile::kBlockM + thread / 8 + i * 16, group);
    }
    WindowPlace place{0, 0, 0};
    place.advance(c, chunk * 16);
    for (int block = 0; block < blocks; block++, ring.advance()) {
      ptx::mbarrier_wait(ring.empty(ring.stage), ring.phase ^ 1);
      if (thread == 0) {
        ptx::mbarrier_arrive_expect(ring.full(ring.stage), Tile::kBytesB);
        ptx::load_box(ring.b(), b_map, ring.full(ring.stage), block * Tile::kBlockK,
                      group * c.n_padded + tile.n * Tile::kBlockN);
      }
#pragma unroll
      for (int i = 0; i < Tile::kWindowRows; i++) {
        const int row = thread / 8 + i * 16;
        const uint8_t* from = window_bytes(c, origin[i], place);
        ptx::cp_async<16>(ring.a() + row * Tile::kBlockK + ((chunk ^ (row & 7)) << 4),
                          from != nullptr ? from : padding_bytes(c), true);
      }
      ptx::cp_async_commit();
      place.advance(c, Tile::kBlockK);
      if (++waiting > Tile::kLag) {
        ptx::cp_async_wait<Tile::kLag>();
        announce();
      }
    }
  }
  ptx::cp_async_wait<0>();
  while (waiting > 0) announce();
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

// A warpgroup: 64 rows of every tile.
template <class Tile>
__device__ __forceinline__ void multiply(const GemmCall& c, Ring<Tile> ring, int blocks,
                                         uint32_t block_rank, int consumer) {
  const int warp = static_cast<int>(threadIdx.x) / 32 % 4;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  Epilogue e = read_epilogue(c);
  for (TileWalk<Tile> walk(c); walk.more(); walk.next()) {
    const TilePlace tile = walk.place(block_rank);
    int32_t acc[Tile::kBlockN / 2];
    int previous = 0;
    for (int block = 0; block < blocks; block++) {
      ptx::mbarrier_wait(ring.full(ring.stage), ring.phase);
      const uint64_t a = ptx::wgmma_descriptor(ring.a() + consumer * 64 * Tile::kBlockK);
      const uint64_t b = ptx::wgmma_descriptor(ring.b());
      ptx::wgmma_fence();
#pragma unroll
      for (int step = 0; step < Tile::kBlockK / 32; step++) {
        // 32 bytes further along K: in units of 16 bytes.
        ptx::wgmma_u8s8<Tile::kBlockN>(acc, a + 2 * step, b + 2 * step, block != 0 || step != 0);
      }
      ptx::wgmma_commit();
      // One group stays in flight; the stage of the one before is free.
      ptx::wgmma_wait<1>();
      if (block != 0) release(ring, previous, lane);
      previous = ring.stage;
      ring.advance();
    }
    ptx::wgmma_wait<0>();
    release(ring, previous, lane);

    if constexpr (!Tile::kIsMatrix) e.set_group(walk.group(), c.n_padded);
    const int64_t row = int64_t{tile.m} * Tile::kBlockM + consumer * 64 + warp * 16 + lane / 4;
    const int first_column = tile.n * Tile::kBlockN + lane % 4 * kLaneChannels;
    // A loop, not unrolled: written out it is 100 KB of code that misses the instruction cache, and
    // took 4 us for a tile of 128 x 256 (H100, bench/results/gpu_bench_h100.json).
#pragma unroll 1
    for (int j = 0; j < Tile::kBlockN / 32; j++) {
      ChannelValues values;
      if (!load_channels(e, first_column + j * 32, values)) break;
      int32_t panel[16];
      take_panel(acc, j, panel);
#pragma unroll
      for (int half = 0; half < 2; half++) {
        int32_t sums[kLaneChannels];
#pragma unroll
        for (int v = 0; v < kLaneChannels; v++) sums[v] = panel[v / 2 * 4 + half * 2 + v % 2];
        store_channels(e, values, row + half * 8, first_column + j * 32, sums);
      }
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
    if constexpr (Tile::kIsMatrix) ptx::prefetch_map(a_map);
    for (int i = 0; i < Tile::kStages; i++) {
      ptx::mbarrier_init(ring.full(i), Tile::kIsMatrix ? 1 : 1 + kWarpgroup);
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
    if constexpr (Tile::kIsMatrix) {
      if (threadIdx.x == 0) copy_boxes<Tile>(c, a_map, b_map, ring, blocks, block_rank);
      __syncwarp();
    } else {
      copy_windows<Tile>(c, b_map, ring, blocks);
    }
  } else {
    if constexpr (Tile::kConsumers == 2) ptx::raise_registers<Tile::kMultiplyRegisters>();
    multiply<Tile>(c, ring, blocks, block_rank, warpgroup - 1);
  }
  // No block leaves while others still write to its barriers.
  if constexpr (Tile::kCluster > 1) ptx::cluster_sync();
}

}  // namespace fastinfer::cuda
