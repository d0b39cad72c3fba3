// Walking the tiles of a panel, and the rows of a tile.
#pragma once

#include <utility>

#include "../cache_lines.h"
#include "../kernel_table.h"
#include "byte_clamp.h"

namespace fastinfer {
namespace {

// The heights 1 to kMax of tiles, less one each.
template <int kMax>
using Heights = std::make_integer_sequence<int, kMax>;

// tile(a, e, clamp) for every tile of every line, with its first row of A and the epilogue at its first
// result.
template <int MR, class Tile>
inline __attribute__((always_inline)) void each_tile(const GemmTiles& t, const Epilogue& epilogue,
                                                     const Tile& tile) {
  Epilogue e = epilogue;
  const ByteClamp clamp(e.out_zero_point, e.qmin, e.qmax);
  for (int64_t line = 0; line < t.lines; line++) {
    const uint8_t* a = t.a + line * t.line_step;
    for (int64_t i = t.tiles; i > 0; i--) {
      tile(a, e, clamp);
      a += MR * t.row_stride;
      e.advance(MR);
    }
  }
}

// Accumulators start from the bias, so nothing is stored before the epilogue.
template <class Vec, int MR, int NV>
inline __attribute__((always_inline)) void start_tile(typename Vec::Int (&acc)[MR][NV],
                                                      const int32_t* bias) {
#pragma GCC unroll 4
  for (int v = 0; v < NV; v++) {
#pragma GCC unroll 16
    for (int r = 0; r < MR; r++) acc[r][v] = Vec::load(bias + v * Vec::kLanes);
  }
}

// Brings some of the next panel's weights near, and moves `ahead` on by them.
inline __attribute__((always_inline)) void fetch_ahead(const GemmTiles& t, const uint8_t*& ahead) {
  if (ahead >= t.ahead_end) return;
  const int64_t bytes = t.ahead_lines * kLineBytes;
  prefetch_weight(ahead, bytes, t.is_read_once);
  ahead += bytes;
}

// Byte distances of rows: bases four rows apart and the strides 1, 2, 3 fit x86 addressing, so a main loop
// spends no instruction on row addresses.
struct RowSteps {
  const int64_t stride;
  int64_t stride3;

  explicit RowSteps(int64_t stride_in) : stride(stride_in), stride3(3 * stride_in) {
    // Opaque to the compiler, which would turn the multiple into a chain of additions.
    asm("" : "+r"(stride3));
  }
  // Of row R from its base.
  template <int R>
  inline __attribute__((always_inline)) int64_t at() const {
    constexpr int kStep = R % 4;
    return kStep == 0 ? 0 : kStep == 1 ? stride : kStep == 2 ? 2 * stride : stride3;
  }
  template <int kBases>
  inline __attribute__((always_inline)) void set_bases(const uint8_t* (&base)[kBases],
                                                       const uint8_t* first) const {
#pragma GCC unroll 4
    for (int i = 0; i < kBases; i++) base[i] = first + i * 4 * stride;
  }
};

template <int MR, int R = 0, class Row>
inline __attribute__((always_inline)) void each_row(const Row& row) {
  row.template operator()<R>();
  if constexpr (R + 1 < MR) each_row<MR, R + 1>(row);
}

}  // namespace
}  // namespace fastinfer
