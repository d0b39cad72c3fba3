// Weights of which every four neighbours along K hold at most two: as sparse tensor cores read
// them. No torch, no CUDA types.
#pragma once

#include <cstdint>
#include <vector>

namespace fastinfer::cuda {

// Rows of a weight in window order, [n][k], and how K is padded: k / run runs to run_padded each.
struct WeightRows {
  const int8_t* data;
  int32_t n, k, run, run_padded;
};

// An image is [panel of 64 channels][block of 128 of K][kTwoOfFourBytes]: 64 rows of 64 stored
// weights, swizzled, then their places, two words for each of 128 threads.
constexpr int32_t kTwoOfFourPanel = 64, kTwoOfFourBlock = 128;
constexpr int32_t kTwoOfFourBytes = 64 * 64 + 128 * 8;

constexpr int64_t two_of_four_bytes(int64_t n, int64_t k_padded) {
  const int64_t panels = (n + kTwoOfFourPanel - 1) / kTwoOfFourPanel;
  return panels * ((k_padded + kTwoOfFourBlock - 1) / kTwoOfFourBlock) * kTwoOfFourBytes;
}

// Whether every four neighbours of a run hold at most two weights that are not zero.
bool is_two_of_four(const WeightRows& rows);

// The image of one group's rows, for which is_two_of_four holds.
std::vector<uint8_t> pack_two_of_four(const WeightRows& rows, int32_t k_padded);

}  // namespace fastinfer::cuda
