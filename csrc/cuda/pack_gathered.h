// Weights of which neighbouring channels keep the same inputs: the inputs that are kept, and dense
// rows of them. No torch, no CUDA types.
#pragma once

#include "pack_two_of_four.h"

namespace fastinfer::cuda {

// An image is [tile of `channels`][block of 128 of K]: `channels` rows of 32 * steps weights,
// swizzled over their length, then for each step 32 places of 16 bits: where in a stage of windows
// (int8_gather_wgmma.cuh) the 32 kept inputs stand, without the row of it, eight for each lane % 4.
// Behind the places are zeros up to 128 bytes.
struct GatherShape {
  int32_t channels;  // that share what they keep; 0: such a weight is none
  int32_t steps;     // of 32 kept inputs, in each block of 128
};

constexpr int32_t kGatherRows = 128;    // pixels of the stage that places are of
constexpr int32_t kGatherPlaces = 128;  // bytes of an image; at most two steps

constexpr int32_t gathered_block_bytes(const GatherShape& s) {
  return s.channels * 32 * s.steps + kGatherPlaces;
}

constexpr int64_t gathered_bytes(const GatherShape& s, int64_t n, int64_t k_padded) {
  return (n + s.channels - 1) / s.channels *
         ((k_padded + kTwoOfFourBlock - 1) / kTwoOfFourBlock) * gathered_block_bytes(s);
}

// The steps that `channels` neighbours of a group need, or 0 where that is more than two: nothing
// to gain.
int32_t gather_steps(const WeightRows& rows, int32_t k_padded, int32_t channels);

// The image of one group's rows. pixel_bytes: of a box of a stage, 128 or 64.
std::vector<uint8_t> pack_gathered(const WeightRows& rows, int32_t k_padded, const GatherShape& s,
                                   int32_t pixel_bytes);

}  // namespace fastinfer::cuda
