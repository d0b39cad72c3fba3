// int8 GEMM with weights of which the channels of a tile keep the same inputs, on wgmma (sm_90a):
// int8_gemm_wgmma.cuh with A from registers. A stage holds 128 inputs of every pixel, as they come
// by bulk copies, and dense rows of the 32 or 64 of them that are kept; a lane loads the bytes that
// its fragment takes from where the stage's places say, so that nothing is moved but what is
// multiplied.
//
// Rows of a stage are swizzled by 16 bytes: lanes of eight rows load the same place of each from
// eight different banks, and the packer gives the four lanes of a row places in different words of
// 16 bytes.
#pragma once

#include "int8_gemm_wgmma.cuh"
#include "mma_sparse.cuh"
#include "pack_gathered.h"

namespace fastinfer::cuda {

template <int kBlockMIn, int kBlockNIn, int kStepsIn, RowSource kSourceIn>
struct GatherTile {
  static constexpr RowSource kSource = kSourceIn;
  static constexpr int kConsumers = kBlockMIn == 64 ? 1 : 2, kCluster = 1, kSteps = kStepsIn;
  static constexpr int kBlockM = kBlockMIn, kParts = kBlockM / 64 / kConsumers;  // of a warpgroup
  static constexpr int kBlockN = kBlockNIn, kBlockK = 128;
  static constexpr int kThreads = kWarpgroup * (1 + kConsumers);
  static constexpr int kRowBytes = 32 * kSteps;  // of kept weights
  static constexpr int kImageBytes = gathered_block_bytes({kBlockN, kSteps});
  static constexpr int kBytesA = kBlockM * kBlockK;
  static constexpr int kStageBytes = (kBytesA + kImageBytes + 1023) / 1024 * 1024;
  static constexpr int kSharedLimit = 227 * 1024, kBarrierBytes = 256;
  static constexpr int kFitting = (kSharedLimit - kBarrierBytes) / kStageBytes;
  static constexpr int kStages = kFitting < 8 ? kFitting : 8;
  static constexpr int kSharedBytes = kStages * kStageBytes + kBarrierBytes;
  static constexpr bool kIsMatrix = kSource == RowSource::kMatrix;
  static constexpr int kCopyRegisters = 40, kMultiplyRegisters = 232;
  static_assert(kStages >= 3 && 2 * 8 * kStages <= kBarrierBytes && kImageBytes % 128 == 0);
  static_assert(kParts * 64 * kConsumers == kBlockM && kParts * kBlockN <= 256);
  static_assert(kSteps == 1 || kSteps == 2);
};

// One thread: boxes of A and images of weights.
template <class Tile>
__device__ __forceinline__ void copy_gather_boxes(const GemmCall& c, const CUtensorMap& x_map,
                                                  const CUtensorMap& weight_map, Ring<Tile> ring,
                                                  int blocks) {
  constexpr int kImageRows = Tile::kImageBytes / 128;
  static_assert(kImageRows <= 256);  // of one box
  const int whole = Tile::kBlockK / c.pixel_bytes;
  const int last = (c.k_padded - (blocks - 1) * Tile::kBlockK) / c.pixel_bytes;
  for (TileWalk<Tile> walk(c); walk.more(); walk.next()) {
    const TilePlace tile = walk.place(0);
    PixelBoxes<Tile> pixels(c, Tile::kIsMatrix ? 0 : tile.m, walk.group());
    for (int block = 0; block < blocks; block++, ring.advance()) {
      const uint32_t full = ring.full(ring.stage);
      ptx::mbarrier_wait(ring.empty(ring.stage), ring.phase ^ 1);
      if constexpr (Tile::kIsMatrix) {
        ptx::mbarrier_arrive_expect(full, Tile::kBytesA + Tile::kImageBytes);
        ptx::load_box(ring.a(), x_map, full, block * Tile::kBlockK, tile.m * Tile::kBlockM);
      } else {
        const int boxes = block + 1 == blocks ? last : whole;
        ptx::mbarrier_arrive_expect(
            full, Tile::kImageBytes + boxes * Tile::kBlockM * c.pixel_bytes);
        pixels.copy(c, x_map, ring.a(), full, boxes);
      }
      const int32_t image = (walk.group() * walk.n_tiles + tile.n) * blocks + block;
      ptx::load_box(ring.b(), weight_map, full, 0, image * kImageRows);
    }
  }
}

// Eight bytes of each of a lane's two rows as its fragment.
__device__ __forceinline__ void join_bytes(const uint32_t (&byte)[2][8], uint32_t (&a)[4]) {
#pragma unroll
  for (int half = 0; half < 2; half++) {
#pragma unroll
    for (int part = 0; part < 2; part++) {
      const uint32_t(&b)[8] = byte[half];
      const uint32_t front = __byte_perm(b[part * 4], b[part * 4 + 1], 0x0040);
      const uint32_t back = __byte_perm(b[part * 4 + 2], b[part * 4 + 3], 0x0040);
      a[part * 2 + half] = __byte_perm(front, back, 0x5410);
    }
  }
}

// The bytes that a lane's fragment takes of its two rows, from where places (eight of 16 bits, less
// the row) say; `turn`: how rows are swizzled. Places are those of stages of kGatherRows pixels.
template <class Tile>
__device__ __forceinline__ void gather_fragment(uint32_t row, uint32_t next_rows, uint32_t turn,
                                                uint4 places, uint32_t (&a)[4]) {
  const uint32_t words[4] = {places.x, places.y, places.z, places.w};
  uint32_t byte[2][8];
#pragma unroll
  for (int i = 0; i < 8; i++) {
    uint32_t place = i % 2 == 0 ? words[i / 2] & 0xFFFFu : words[i / 2] >> 16;
    if constexpr (!Tile::kIsMatrix && Tile::kBlockM != kGatherRows) {
      constexpr uint32_t kBox = kGatherRows * 64;  // where the second box of 64 bytes begins
      place = place % kBox + place / kBox * (Tile::kBlockM * 64);
    }
    // A row of a matrix begins at a whole 128, so that one instruction does both.
    const uint32_t at = Tile::kIsMatrix ? row | (place ^ turn) : row + (place ^ turn);
    byte[0][i] = ptx::load_shared_byte(at);
    byte[1][i] = ptx::load_shared_byte(at + next_rows);
  }
  join_bytes(byte, a);
}

// A warpgroup: kParts times 64 rows of every tile.
template <class Tile>
__device__ __forceinline__ void multiply_gathered(const GemmCall& c, Ring<Tile> ring, int blocks,
                                                  int consumer) {
  const int thread = static_cast<int>(threadIdx.x) % kWarpgroup;
  const int warp = thread / 32, lane = thread % 32;
  Epilogue e = read_epilogue(c);
  const auto& h = *reinterpret_cast<const PackedHeader*>(c.packed);
  if (h.index != c.sparse || h.pixels != Tile::kBlockN) __trap();
  const uint32_t row_bytes = Tile::kIsMatrix ? 128 : static_cast<uint32_t>(c.pixel_bytes);
  const int own = consumer * Tile::kParts * 64;  // the first row of a tile
  const uint32_t row = own + warp * 16 + lane / 4;
  // Of rows of 128 bytes, the place of 16 of them; of 64 bytes, of two rows.
  const uint32_t turn = row_bytes == 128 ? (row & 7) << 4 : (row >> 1 & 3) << 4;
  PaddingFill<Tile::kBlockM> padding[Tile::kParts] = {};
  if constexpr (!Tile::kIsMatrix) {
#pragma unroll
    for (int i = 0; i < Tile::kParts; i++) {
      padding[i] = PaddingFill<Tile::kBlockM>(c, thread, own + i * 64);
    }
  }
  for (TileWalk<Tile> walk(c); walk.more(); walk.next()) {
    const TilePlace tile = walk.place(0);
    int32_t acc[Tile::kParts][Tile::kBlockN / 2];
    if constexpr (!Tile::kIsMatrix) e.set_group(walk.group(), c.n_padded);
    const int64_t row0 = int64_t{tile.m} * Tile::kBlockM + own;
    const int first_column = tile.n * Tile::kBlockN + lane % 4 * kLaneChannels;
    prefetch_epilogue<Tile::kParts * 64, Tile::kBlockN, kWarpgroup>(e, row0, tile.n * Tile::kBlockN,
                                                                    thread);
    if constexpr (!Tile::kIsMatrix) {
#pragma unroll
      for (int i = 0; i < Tile::kParts; i++) padding[i].start(c, row0 + i * 64, thread);
    }
    for (int block = 0; block < blocks; block++) {
      ptx::mbarrier_wait(ring.full(ring.stage), ring.phase);
      if constexpr (!Tile::kIsMatrix) {
#pragma unroll
        for (int i = 0; i < Tile::kParts; i++) padding[i].fill(c, ring.a(), consumer);
      }
      const uint64_t b = ptx::wgmma_descriptor(ring.b(), Tile::kRowBytes);
      const uint32_t places = ring.b() + Tile::kBlockN * Tile::kRowBytes + lane % 4 * 16;
      uint32_t a[Tile::kParts][Tile::kSteps][4];
#pragma unroll
      for (int step = 0; step < Tile::kSteps; step++) {
        const uint4 eight = ptx::load_shared_16(places + step * 64);
#pragma unroll
        for (int i = 0; i < Tile::kParts; i++) {
          gather_fragment<Tile>(ring.a() + (row + i * 64) * row_bytes, 8 * row_bytes, turn, eight,
                                a[i][step]);
        }
      }
      ptx::wgmma_fence();
#pragma unroll
      for (int i = 0; i < Tile::kParts; i++) {
#pragma unroll
        for (int step = 0; step < Tile::kSteps; step++) {
          ptx::wgmma_held_u8s8<Tile::kBlockN>(acc[i], a[i][step], b + 2 * step,
                                              block != 0 || step != 0);
        }
      }
      ptx::wgmma_commit();
      // The tensor cores read A's registers while they multiply, and the next stage's bytes come into
      // them: no group stays in flight. (With two sets of registers ptxas waits all the same, C7513.)
      ptx::wgmma_wait<0>();
      release(ring, ring.stage, lane);
      ring.advance();
    }

#pragma unroll
    for (int i = 0; i < Tile::kParts; i++) {
      const int64_t first_row = row0 + i * 64 + warp * 16 + lane / 4;
      if (e.is_wide && e.is_small && !e.float_output && e.table == nullptr) {
        store_panels(e, acc[i], first_row, tile.n * Tile::kBlockN, first_column);
      } else {
        store_any(e, acc[i], first_row, first_column);
      }
    }
  }
}

template <class Tile>
__global__ void __launch_bounds__(Tile::kThreads, 1)
    int8_gather_wgmma(const __grid_constant__ GemmCall c, const __grid_constant__ CUtensorMap x_map,
                      const __grid_constant__ CUtensorMap weight_map) {
  extern __shared__ __align__(1024) uint8_t stages[];
  const Ring<Tile> ring{ptx::shared_address(stages)};
  if (ring.base % 1024 != 0) __trap();  // what the swizzle of copies and products counts from
  const int blocks = (c.k_padded + Tile::kBlockK - 1) / Tile::kBlockK;
  if (threadIdx.x == 0) {
    ptx::prefetch_map(weight_map);
    ptx::prefetch_map(x_map);
    for (int i = 0; i < Tile::kStages; i++) {
      ptx::mbarrier_init(ring.full(i), 1);
      ptx::mbarrier_init(ring.empty(i), Tile::kConsumers * 4);  // a warp each
    }
    ptx::mbarrier_init_fence();
  }
  __syncthreads();
  const int warpgroup = static_cast<int>(threadIdx.x) / kWarpgroup;
  if (warpgroup == 0) {
    if constexpr (Tile::kConsumers == 2) ptx::lower_registers<Tile::kCopyRegisters>();
    if (threadIdx.x == 0) copy_gather_boxes<Tile>(c, x_map, weight_map, ring, blocks);
    __syncwarp();
  } else {
    if constexpr (Tile::kConsumers == 2) ptx::raise_registers<Tile::kMultiplyRegisters>();
    multiply_gathered<Tile>(c, ring, blocks, warpgroup - 1);
  }
}

}  // namespace fastinfer::cuda
