// int8 GEMM with 2:4 sparse weights on mma.sp (sm_80 and later), of rows that any image or matrix
// of whole 16 bytes has: the ring of int8_gemm_mma.cuh, with weights as the sparse factor, which
// comes first. A tile is kBlockN channels times kBlockM pixels.
//
// A stage is 64 bytes of K of every pixel and the 32 weights of every channel that are stored of
// them; where those stand comes straight from the image (pack_two_of_four.h), a block ahead.
#pragma once

#include "int8_gemm_mma.cuh"
#include "pack_two_of_four.h"
#include "sparse_epilogue.cuh"

namespace fastinfer::cuda {

template <int kBlockMIn, int kBlockNIn>
struct SparseMmaTile {
  static constexpr int kBlockM = kBlockMIn, kBlockN = kBlockNIn, kBlockK = 64, kStages = 4;
  static constexpr int kWarpM = 32, kWarpN = kBlockN / 2, kWarpsM = kBlockM / kWarpM;
  static constexpr int kThreads = 32 * 2 * kWarpsM;
  static constexpr int kChunks = kBlockK / 16;
  static constexpr int kBytesA = kBlockM * kBlockK, kStageBytes = kBytesA + kBlockN * kBlockK / 2;
  static constexpr int kSharedBytes = kStages * kStageBytes;
  static constexpr int kRowsA = kBlockM * kChunks / kThreads;  // that a thread fills
  static constexpr int kFragmentsN = kWarpN / 16, kFragmentsM = kWarpM / 8;
  // Of a pixel's results while they turn; lanes of four pixels meet no bank twice.
  static constexpr int kPitch = kBlockN + 16;
  static_assert(kThreads == 2 * kBlockN && kRowsA * kThreads == kBlockM * kChunks);
  static_assert(kBlockN % 64 == 0 && kBlockM * kPitch <= kSharedBytes);
};

// Rows of 32 bytes: eight rows of one 16 meet no bank twice.
__device__ __forceinline__ uint32_t stored_place(int row, int chunk) {
  return static_cast<uint32_t>(row * 32 + ((chunk ^ (row >> 2 & 1)) << 4));
}

// Where in the buffer the image of the panel is that holds a channel of a group; beyond the last
// panel that comes again. In 32 bits, as registers are scarce: prepack.cpp makes no larger buffer.
__device__ __forceinline__ uint32_t panel_image(const GemmCall& c, int group, int channel) {
  const int32_t blocks = (c.k_padded + kTwoOfFourBlock - 1) / kTwoOfFourBlock;
  const int32_t last = (c.n - 1) / kTwoOfFourPanel;
  const int32_t panel = group * (last + 1) + min(channel / kTwoOfFourPanel, last);
  return static_cast<uint32_t>(c.sparse) + static_cast<uint32_t>(panel * blocks) * kTwoOfFourBytes;
}

// Begins to copy half a row's stored weights of a block of 64 into a stage.
__device__ __forceinline__ void copy_stored(const GemmCall& c, uint32_t image, int row, int half,
                                            int block, uint32_t to) {
  const int in_panel = row % kTwoOfFourPanel, chunk = block % 2 * 2 + half;
  const uint32_t from = image + block / 2 * kTwoOfFourBytes + in_panel * 64 +
                        ((chunk ^ (in_panel >> 1 & 3)) << 4);
  ptx::cp_async<16>(to + stored_place(row, half), c.packed + from, true);
}

// The places of a lane's rows of the i-th 16 channels, where `words` are those of the first block.
__device__ __forceinline__ uint32_t load_places(const GemmCall& c, uint32_t words, int block,
                                                int i) {
  const uint32_t from = words + block / 2 * kTwoOfFourBytes + block % 2 * 4;
  return __ldg(reinterpret_cast<const uint32_t*>(c.packed + from + i * 256));
}

// A lane's codes of two neighbouring channels of one pixel, as they lie in memory.
__device__ __forceinline__ uint32_t two_codes(const SparseEpilogue& s, const TwoChannels& v,
                                              int32_t low, int32_t high, bool has_residual,
                                              uint32_t residual) {
  const int32_t acc[2] = {low, high};
  uint32_t code[2];
#pragma unroll
  for (int i = 0; i < 2; i++) {
    float f = __fmul_rn(__int2float_rn(acc[i] + v.bias[i]), v.multiplier[i]);
    if (has_residual) {
      f = __fadd_rn(f, __fmul_rn(float_of(residual, i), v.residual_multiplier[i]));
    }
    code[i] = code_above(s, f);
  }
  return __byte_perm(code[0], code[1], 0x0040) + (s.e.lowest & 0xFFFFu);
}

// Moves 16 bytes a thread between a tile's results in shared memory and a tensor like `out`.
template <class Tile, bool kIsLoad>
__device__ __forceinline__ void move_results(const Epilogue& e, uint8_t* tile, int64_t row0,
                                             int first, void* tensor) {
  constexpr int kParts = Tile::kBlockN / 16;
  for (int i = static_cast<int>(threadIdx.x); i < Tile::kBlockM * kParts; i += Tile::kThreads) {
    const int pixel = i / kParts, channel = i % kParts * 16;
    if (row0 + pixel >= e.m || first + channel >= e.n) continue;
    const int64_t at = (row0 + pixel) * e.ldc + e.first_channel + first + channel;
    auto* there = reinterpret_cast<uint4*>(static_cast<uint8_t*>(tensor) + at);
    auto* here = reinterpret_cast<uint4*>(tile + pixel * Tile::kPitch + channel);
    if constexpr (kIsLoad) {
      *here = __ldg(there);
    } else {
      *there = *here;
    }
  }
}

// Any results: sums of a warp's 16 channels and 32 pixels at a time go through shared memory to a
// loop that is not written out.
template <class Tile>
__device__ __forceinline__ void store_each_sum(
    const SparseEpilogue& s, const int32_t (&acc)[Tile::kFragmentsN][Tile::kFragmentsM][4],
    uint8_t* scratch, int64_t row0, int first, int lane) {
  const Epilogue& e = s.e;
  static_assert(Tile::kThreads / 32 * Tile::kWarpM * 16 * 4 <= Tile::kSharedBytes);
  auto* sums = reinterpret_cast<int32_t*>(scratch);
#pragma unroll
  for (int i = 0; i < Tile::kFragmentsN; i++) {
    __syncwarp();
#pragma unroll
    for (int j = 0; j < Tile::kFragmentsM; j++) {
#pragma unroll
      for (int k = 0; k < 4; k++) {
        const int pixel = j * 8 + lane % 4 * 2 + k % 2;
        sums[pixel * 16 + lane / 4 * 2 + k / 2] = acc[i][j][k];
      }
    }
    __syncwarp();
    const int channel = first + i * 16 + lane % 16, value = e.first_value + channel;
    if (channel >= e.n) continue;
    const int32_t bias = __ldg(e.bias + value);
    const float multiplier = __ldg(e.multiplier + value);
    const bool has_bytes = e.residual != nullptr && !e.float_output;
    const float more = has_bytes ? __ldg(e.residual_multiplier + value) : 0.0f;
#pragma unroll 1
    for (int pixel = lane / 16; pixel < Tile::kWarpM && row0 + pixel < e.m; pixel += 2) {
      store_one(s, sums[pixel * 16 + lane % 16], bias, multiplier, more,
                (row0 + pixel) * e.ldc + e.first_channel + channel);
    }
  }
}

template <class Tile>
__device__ __forceinline__ void store_tile(
    const SparseEpilogue& s, const int32_t (&acc)[Tile::kFragmentsN][Tile::kFragmentsM][4],
    uint8_t* tile, int64_t row0, int first, int thread) {
  const Epilogue& e = s.e;
  const int warp = thread / 32, lane = thread % 32;
  const int warp_m = warp % Tile::kWarpsM * Tile::kWarpM;
  const int warp_n = warp / Tile::kWarpsM * Tile::kWarpN;
  const bool is_fast = s.is_wide && e.is_small && !e.float_output && e.table == nullptr;
  const bool has_residual = is_fast && e.residual != nullptr;
  __syncthreads();  // stages are no longer read
  if (has_residual) {
    move_results<Tile, true>(e, tile, row0, first, const_cast<void*>(e.residual));
    __syncthreads();
  }
  if (!is_fast) {
    uint8_t* scratch = tile + warp * Tile::kWarpM * 16 * 4;
    return store_each_sum<Tile>(s, acc, scratch, row0 + warp_m, first + warp_n, lane);
  }
#pragma unroll
  for (int i = 0; i < Tile::kFragmentsN; i++) {
    int in_tile = warp_n + i * 16 + lane / 4 * 2;
    ptx::keep_order(in_tile);  // else all channels' values are loaded first
    const TwoChannels v = load_two(e, e.first_value, first + in_tile);
    uint8_t* column = tile + (warp_m + lane % 4 * 2) * Tile::kPitch + in_tile;
#pragma unroll
    for (int j = 0; j < Tile::kFragmentsM; j++) {
#pragma unroll
      for (int k = 0; k < 2; k++) {
        auto* at = reinterpret_cast<uint16_t*>(column + (j * 8 + k) * Tile::kPitch);
        const uint32_t residual = has_residual ? *at : 0u;
        *at = static_cast<uint16_t>(
            two_codes(s, v, acc[i][j][k], acc[i][j][2 + k], has_residual, residual));
      }
    }
  }
  __syncthreads();
  move_results<Tile, false>(e, tile, row0, first, e.out);
}

template <int kBlockM, int kBlockN, RowSource kSource>
__global__ void __launch_bounds__(SparseMmaTile<kBlockM, kBlockN>::kThreads, 2)
    int8_sparse_mma(const __grid_constant__ GemmCall c, int32_t m_tiles, int32_t n_tiles) {
  using Tile = SparseMmaTile<kBlockM, kBlockN>;
  extern __shared__ __align__(128) uint8_t stages[];
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int warp_m = warp % Tile::kWarpsM * Tile::kWarpM;
  const int warp_n = warp / Tile::kWarpsM * Tile::kWarpN;
  const TilePlace tile = tile_place(static_cast<int32_t>(blockIdx.x), m_tiles, n_tiles);
  const int group = static_cast<int>(blockIdx.y);
  const int64_t row0 = int64_t{tile.m} * kBlockM;
  const int first = tile.n * kBlockN;
  const uint32_t base = ptx::shared_address(stages);
  const int blocks = (c.k_padded + Tile::kBlockK - 1) / Tile::kBlockK;
  static_assert(kTwoOfFourPanel % Tile::kWarpN == 0);  // a warp's channels are of one panel
  const uint32_t words = panel_image(c, group, first + warp_n) + 64 * 64 +
                         (warp_n % kTwoOfFourPanel / 16 * 32 + lane) * 8;
  const int stored_row = static_cast<int>(threadIdx.x) / 2;
  const uint32_t stored = panel_image(c, group, first + stored_row);

  RowReader<Tile, kSource> reader;
  reader.start(c, row0, group);
  const auto copy = [&](int block) {
    if (block < blocks) {
      const uint32_t stage = base + block % Tile::kStages * Tile::kStageBytes;
      reader.copy(c, stage);
      copy_stored(c, stored, stored_row, static_cast<int>(threadIdx.x) % 2, block,
                  stage + Tile::kBytesA);
    }
    ptx::cp_async_commit();
  };
  int32_t acc[Tile::kFragmentsN][Tile::kFragmentsM][4] = {};
  for (int i = 0; i < Tile::kStages - 1; i++) copy(i);
  uint32_t places[Tile::kFragmentsN];
#pragma unroll
  for (int i = 0; i < Tile::kFragmentsN; i++) places[i] = load_places(c, words, 0, i);
  for (int block = 0; block < blocks; block++) {
    ptx::cp_async_wait<Tile::kStages - 2>();
    __syncthreads();
    copy(block + Tile::kStages - 1);
    const uint32_t pixels = base + block % Tile::kStages * Tile::kStageBytes;
    const uint32_t weights = pixels + Tile::kBytesA;
    const int next = min(block + 1, blocks - 1);
    uint32_t b[Tile::kFragmentsM][4];
#pragma unroll
    for (int j = 0; j < Tile::kFragmentsM; j++) {
      ptx::ldmatrix_x4(b[j], pixels + mma_swizzle(warp_m + j * 8 + lane % 8, lane / 8));
    }
#pragma unroll
    for (int i = 0; i < Tile::kFragmentsN; i++) {
      uint32_t a[4];
      ptx::ldmatrix_x4(a, weights + stored_place(warp_n + i * 16 + lane % 16, lane / 16));
#pragma unroll
      for (int j = 0; j < Tile::kFragmentsM; j++) {
        ptx::mma_sparse_s8u8(acc[i][j], a, b[j], places[i]);
      }
      places[i] = load_places(c, words, next, i);  // on its way until the next block
    }
  }
  ptx::cp_async_wait<0>();

  // Where the tile and this warp are, once more: registers that kept it would be spilled.
  auto index = static_cast<int32_t>(blockIdx.x), thread = static_cast<int32_t>(threadIdx.x);
  ptx::keep_order(index);
  ptx::keep_order(thread);
  const TilePlace again = tile_place(index, m_tiles, n_tiles);
  SparseEpilogue s = read_sparse_epilogue(c);
  s.e.set_group(static_cast<int>(blockIdx.y), c.n_padded);
  store_tile<Tile>(s, acc, stages, int64_t{again.m} * kBlockM, again.n * kBlockN, thread);
}

}  // namespace fastinfer::cuda
