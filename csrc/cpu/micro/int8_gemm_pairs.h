// int8 GEMM tile for vectors without a dot-product instruction, exact.
//
// maddubs sums two u8 x s8 products in saturating int16. The packer makes that safe: in every
// entry, the weights of one 16-bit lane sum to at most 128 in either sign (255 * 128 < 2^15), a
// group that cannot is split over two entries, and two entries whose sums stay within the bound
// together are neighbours, so their 16-bit sums are added before they are widened. That is 3
// multiplies for 64 products a vector instead of 4. csrc/cpu/prepack.cpp holds the other half.
#pragma once

#include "store_tile.h"
#include "tiles.h"

namespace fastinfer {
namespace {

// a: rows at `row_stride`; every entry's 4 bytes must be readable. weight: [entry][lanes][4].
template <class Vec, int MR>
__attribute__((noinline)) void int8_gemm_pairs(const GemmTiles& t, const Epilogue& epilogue) {
  static_assert(MR <= 8, "two bases reach eight rows");
  using Int = typename Vec::Int;
  const RowSteps steps(t.row_stride);
  int64_t stride4 = 4 * t.row_stride;
  asm("" : "+r"(stride4));  // see RowSteps
  const Int ones = Vec::set16(1);
  each_tile<MR>(t, epilogue, [&](const uint8_t* a, const Epilogue& e, const ByteClamp& clamp)
                                 __attribute__((always_inline)) {
    const auto* w = static_cast<const int8_t*>(t.weight);
    const int32_t* offset = t.offsets;
    Int acc[MR][1];
    start_tile<Vec>(acc, e.bias);
    for (int i = t.pairs; i > 0; i--) {
      const uint8_t* p = a + offset[0];
      const uint8_t* q = a + offset[1];
      const Int b0 = Vec::load(w), b1 = Vec::load(w + Vec::kBytes);
      each_row<MR>([&]<int R>() __attribute__((always_inline)) {
        const int64_t at = steps.at<R>();
        const uint8_t* pr = R < 4 ? p : p + stride4;
        const uint8_t* qr = R < 4 ? q : q + stride4;
        const Int s0 = Vec::mul_u8s8_add16(Vec::broadcast4(pr + at), b0);
        const Int s1 = Vec::mul_u8s8_add16(Vec::broadcast4(qr + at), b1);
        acc[R][0] = Vec::add32(acc[R][0], Vec::mul16_add32(Vec::add16(s0, s1), ones));
      });
      offset += 2;
      w += 2 * Vec::kBytes;
    }
    for (int i = t.singles; i > 0; i--) {
      const uint8_t* p = a + offset[0];
      const Int b0 = Vec::load(w);
      each_row<MR>([&]<int R>() __attribute__((always_inline)) {
        const uint8_t* pr = R < 4 ? p : p + stride4;
        const Int s0 = Vec::mul_u8s8_add16(Vec::broadcast4(pr + steps.at<R>()), b0);
        acc[R][0] = Vec::add32(acc[R][0], Vec::mul16_add32(s0, ones));
      });
      offset += 1;
      w += Vec::kBytes;
    }
    store_tile<Vec, MR, 1>(acc, e, clamp);
  });
}

// Every height up to the number of R.
template <class Vec, int... R>
constexpr GemmKernels pairs_kernels(std::integer_sequence<int, R...>) {
  return {sizeof...(R), {int8_gemm_pairs<Vec, R + 1>...}};
}

}  // namespace
}  // namespace fastinfer
