// Multiply-adds in registers, as the GEMM kernels do them: what they could reach at most.
//
// A chain multiplies its own sum, so that the compiler can neither hoist a product nor drop it; there
// are more chains than an instruction's latency needs. The numbers mean nothing.
#pragma once

#include <cstdint>

namespace fastinfer {
namespace {

template <class Vec, int kChains, class MultiplyAdd>
int64_t peak_rounds(int64_t rounds, int multiply_adds, MultiplyAdd multiply_add) {
  typename Vec::Int chains[kChains];
  for (int c = 0; c < kChains; c++) chains[c] = Vec::set32(c + 1);
  for (int64_t r = 0; r < rounds; r++) {
#pragma GCC unroll 16
    for (int c = 0; c < kChains; c++) chains[c] = multiply_add(chains[c]);
  }
  for (int c = 1; c < kChains; c++) chains[0] = Vec::add32(chains[0], chains[c]);
  uint8_t bytes[Vec::kBytes];
  Vec::store(bytes, chains[0]);
  const volatile uint8_t wanted = bytes[0];  // else the compiler drops the sums
  static_cast<void>(wanted);
  return rounds * kChains * multiply_adds;
}

// One u8 x s8 dot product for 4 products of a lane.
template <class Vec>
int64_t peak_dot(int64_t rounds) {
  const auto b = Vec::set32(0x5a3c7f11);
  return peak_rounds<Vec, 14>(rounds, 4 * Vec::kLanes, [&](typename Vec::Int a) {
    return Vec::dot_u8s8(a, a, b);
  });
}

// A pair of int8_gemm_pairs.h: 8 products of a lane in 3 multiplies.
template <class Vec>
int64_t peak_pairs(int64_t rounds) {
  const auto b0 = Vec::set32(0x5a3c7f11), b1 = Vec::set32(0x13572468), ones = Vec::set16(1);
  return peak_rounds<Vec, 10>(rounds, 8 * Vec::kLanes, [&](typename Vec::Int a) {
    const auto sum = Vec::add16(Vec::mul_u8s8_add16(a, b0), Vec::mul_u8s8_add16(a, b1));
    return Vec::add32(a, Vec::mul16_add32(sum, ones));
  });
}

}  // namespace
}  // namespace fastinfer
