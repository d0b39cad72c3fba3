// int8 GEMM on mma.sync: tiles of A and B in a ring of stages filled by cp.async, read as fragments
// by ldmatrix. Runs on sm_80 and later, and reads any A.
#pragma once

#include "epilogue.cuh"
#include "mma.cuh"
#include "tile_order.cuh"
#include "windows.cuh"

namespace fastinfer::cuda {

template <int kBlockMIn, int kBlockNIn>
struct MmaTile {
  static constexpr int kBlockM = kBlockMIn, kBlockN = kBlockNIn, kBlockK = 64, kStages = 4;
  static constexpr int kWarpM = kBlockM / 2, kWarpN = 32;
  static constexpr int kWarpsN = kBlockN / kWarpN, kThreads = 32 * 2 * kWarpsN;
  static constexpr int kChunks = kBlockK / 16;  // of 16 bytes, in a row of a stage
  static constexpr int kStageBytes = (kBlockM + kBlockN) * kBlockK;
  static constexpr int kSharedBytes = kStages * kStageBytes;
  static constexpr int kRowsA = kBlockM * kChunks / kThreads;  // that a thread fills
  static constexpr int kRowsB = kBlockN * kChunks / kThreads;
  static_assert(kWarpM % 16 == 0 && kBlockN % kWarpN == 0);
  static_assert(kRowsA * kThreads == kBlockM * kChunks && kRowsB * kThreads == kBlockN * kChunks);
};

// Eight rows of one 16-byte column, and a row's two halves of 32 bytes, meet no bank twice.
__device__ __forceinline__ uint32_t mma_swizzle(int row, int chunk) {
  return static_cast<uint32_t>(row * 64 + ((chunk ^ (row >> 1 & 3)) << 4));
}

// The rows of A that one thread copies: always the same rows, and the same chunk of a stage.
template <class Tile, RowSource kSource>
struct RowReader {
  const uint8_t* row[Tile::kRowsA];       // kMatrix
  WindowOrigin origin[Tile::kRowsA];      // windows
  WindowPlace place;
  uint4 held[Tile::kRowsA];               // kNarrow: on the way from global to shared memory
  bool is_row[Tile::kRowsA];
  int32_t k;                              // byte of the row that the next chunk starts at
  bool has_words;

  __device__ __forceinline__ void start(const GemmCall& c, int64_t first_row, int group) {
    const int thread = static_cast<int>(threadIdx.x);
    k = thread % Tile::kChunks * 16;
    if constexpr (kSource == RowSource::kMatrix) {
#pragma unroll
      for (int i = 0; i < Tile::kRowsA; i++) {
        const int64_t r = first_row + (thread + i * Tile::kThreads) / Tile::kChunks;
        is_row[i] = r < c.m;
        row[i] = c.x + (is_row[i] ? r * c.run : 0);
      }
    } else {
#pragma unroll
      for (int i = 0; i < Tile::kRowsA; i++) {
        const int64_t r = first_row + (thread + i * Tile::kThreads) / Tile::kChunks;
        origin[i] = window_origin(c, r, group);
      }
      place = {0, 0, 0};
      move(c, k);
      has_words = c.run % 4 == 0 && c.windows.channels % 4 == 0 &&
                  reinterpret_cast<uintptr_t>(c.x) % 4 == 0;
    }
  }

  // Begins to copy the next chunk of each row into a stage; `finish` ends it for kNarrow.
  __device__ __forceinline__ void copy(const GemmCall& c, uint32_t stage) {
    const int thread = static_cast<int>(threadIdx.x), chunk = thread % Tile::kChunks;
#pragma unroll
    for (int i = 0; i < Tile::kRowsA; i++) {
      const uint32_t to = stage + mma_swizzle((thread + i * Tile::kThreads) / Tile::kChunks, chunk);
      if constexpr (kSource == RowSource::kMatrix) {
        const bool valid = is_row[i] && k < c.run;
        ptx::cp_async<16>(to, valid ? row[i] + k : c.x, valid);
      } else if constexpr (kSource == RowSource::kWindows) {
        const uint8_t* from = window_bytes(c, origin[i], place);
        ptx::cp_async<16>(to, from != nullptr ? from : padding_bytes(c), true);
      } else {
        held[i] = c.run_padded == 4 ? four_taps(c, origin[i], place, has_words)
                                    : narrow_bytes(c, origin[i], place, has_words);
      }
    }
    k += Tile::kBlockK;
    if constexpr (kSource != RowSource::kMatrix) move(c, Tile::kBlockK);
  }

  __device__ __forceinline__ void move(const GemmCall& c, int bytes) {
    if (kSource == RowSource::kNarrow && c.run_padded == 4) {
      advance_taps(c, place, bytes / 4);
    } else {
      place.advance(c, bytes);
    }
  }

  __device__ __forceinline__ void finish(uint8_t* stage) {
    if constexpr (kSource == RowSource::kNarrow) {
      const int thread = static_cast<int>(threadIdx.x), chunk = thread % Tile::kChunks;
#pragma unroll
      for (int i = 0; i < Tile::kRowsA; i++) {
        const int r = (thread + i * Tile::kThreads) / Tile::kChunks;
        *reinterpret_cast<uint4*>(stage + mma_swizzle(r, chunk)) = held[i];
      }
    }
  }
};

template <class Tile>
__device__ __forceinline__ void copy_weights(const GemmCall& c, const uint8_t* rows, int first_row,
                                             int block, uint32_t stage) {
  const int thread = static_cast<int>(threadIdx.x), chunk = thread % Tile::kChunks;
  const int k = block * Tile::kBlockK + chunk * 16;
#pragma unroll
  for (int i = 0; i < Tile::kRowsB; i++) {
    const int r = (thread + i * Tile::kThreads) / Tile::kChunks;
    const bool valid = first_row + r < c.n_padded && k < c.k_padded;
    const uint8_t* from = valid ? rows + int64_t{first_row + r} * c.k_padded + k : c.packed;
    ptx::cp_async<16>(stage + mma_swizzle(r, chunk), from, valid);
  }
}

template <int kBlockM, int kBlockN, RowSource kSource>
__global__ void __launch_bounds__(MmaTile<kBlockM, kBlockN>::kThreads, 2)
    int8_gemm_mma(const __grid_constant__ GemmCall c, int32_t m_tiles, int32_t n_tiles) {
  using Tile = MmaTile<kBlockM, kBlockN>;
  extern __shared__ __align__(128) uint8_t stages[];
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int warp_m = warp / Tile::kWarpsN * Tile::kWarpM;
  const int warp_n = warp % Tile::kWarpsN * Tile::kWarpN;
  const TilePlace tile = tile_place(static_cast<int32_t>(blockIdx.x), m_tiles, n_tiles);
  const int group = static_cast<int>(blockIdx.y);
  const int64_t first_row = int64_t{tile.m} * kBlockM;
  const int first_column = tile.n * kBlockN;
  const uint8_t* weight =
      c.packed + kPackedHeaderBytes + int64_t{group} * c.n_padded * c.k_padded;
  const uint32_t base = ptx::shared_address(stages);
  const int blocks = (c.k_padded + Tile::kBlockK - 1) / Tile::kBlockK;

  RowReader<Tile, kSource> reader;
  reader.start(c, first_row, group);
  const auto copy = [&](int block) {
    if (block < blocks) {
      const uint32_t stage = base + block % Tile::kStages * Tile::kStageBytes;
      reader.copy(c, stage);
      copy_weights<Tile>(c, weight, first_column, block, stage + kBlockM * Tile::kBlockK);
    }
    ptx::cp_async_commit();
  };
  const auto finish = [&](int block) {
    if (block < blocks) reader.finish(stages + block % Tile::kStages * Tile::kStageBytes);
  };

  constexpr int kFragmentsM = Tile::kWarpM / 16, kFragmentsN = Tile::kWarpN / 8;
  int32_t acc[kFragmentsM][kFragmentsN][4] = {};
  for (int i = 0; i < Tile::kStages - 1; i++) {
    copy(i);
    finish(i);
  }
  // While the first stages are on their way. What it found is not kept: registers are scarce.
  Epilogue ahead = read_epilogue(c);
  ahead.set_group(group, c.n_padded);
  prefetch_epilogue<kBlockM, kBlockN, Tile::kThreads>(ahead, first_row, first_column,
                                                      static_cast<int>(threadIdx.x));
  for (int block = 0; block < blocks; block++) {
    ptx::cp_async_wait<Tile::kStages - 2>();
    __syncthreads();
    copy(block + Tile::kStages - 1);
    const uint32_t a_stage = base + block % Tile::kStages * Tile::kStageBytes;
    const uint32_t b_stage = a_stage + kBlockM * Tile::kBlockK;
#pragma unroll
    for (int step = 0; step < Tile::kBlockK / 32; step++) {
      uint32_t a[kFragmentsM][4], b[kFragmentsN / 2][4];
#pragma unroll
      for (int i = 0; i < kFragmentsM; i++) {
        const int row = warp_m + i * 16 + lane % 16;
        ptx::ldmatrix_x4(a[i], a_stage + mma_swizzle(row, step * 2 + lane / 16));
      }
#pragma unroll
      for (int j = 0; j < kFragmentsN / 2; j++) {
        const int row = warp_n + j * 16 + lane % 8 + lane / 16 * 8;
        ptx::ldmatrix_x4(b[j], b_stage + mma_swizzle(row, step * 2 + lane / 8 % 2));
      }
#pragma unroll
      for (int i = 0; i < kFragmentsM; i++) {
#pragma unroll
        for (int j = 0; j < kFragmentsN; j++) {
          ptx::mma_u8s8(acc[i][j], a[i], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
        }
      }
    }
    finish(block + Tile::kStages - 1);
  }
  ptx::cp_async_wait<0>();

  Epilogue e = read_epilogue(c);
  take_ranges(e, c);
  e.set_group(group, c.n_padded);
  const int column = first_column + warp_n + lane % 4 * kLaneChannels;
  ChannelValues values;
  if (!load_channels(e, column, values)) return;
  load_residual_channels(e, column, values);
#pragma unroll
  for (int i = 0; i < kFragmentsM; i++) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      int32_t sums[kLaneChannels];
#pragma unroll
      for (int v = 0; v < kLaneChannels; v++) sums[v] = acc[i][v / 2][half * 2 + v % 2];
      store_channels(e, values, first_row + warp_m + i * 16 + half * 8 + lane / 4, column, sums);
    }
  }
}

}  // namespace fastinfer::cuda
