#include "pack_gathered.h"

#include <algorithm>

namespace fastinfer::cuda {
namespace {

constexpr int32_t kBlock = kTwoOfFourBlock, kMostSteps = 2, kLanes = 4, kLoads = 8;

// One channel's weights, with K padded as the kernels read it.
void pad_row(const WeightRows& rows, int64_t channel, std::vector<int8_t>& to) {
  std::fill(to.begin(), to.end(), int8_t{0});
  for (int32_t r = 0; r < rows.k / rows.run; r++) {
    std::copy_n(rows.data + channel * rows.k + int64_t{r} * rows.run, rows.run,
                to.data() + int64_t{r} * rows.run_padded);
  }
}

int64_t blocks_of(int32_t k_padded) { return (k_padded + kBlock - 1) / kBlock; }

// Whether any of some channels has a weight at each place of K.
std::vector<bool> kept_by(const WeightRows& rows, int32_t k_padded, int64_t first,
                          int32_t channels) {
  std::vector<int8_t> row(static_cast<size_t>(blocks_of(k_padded) * kBlock));
  std::vector<bool> kept(row.size(), false);
  for (int64_t c = first; c < std::min<int64_t>(first + channels, rows.n); c++) {
    pad_row(rows, c, row);
    for (size_t i = 0; i < row.size(); i++) {
      if (row[i] != 0) kept[i] = true;
    }
  }
  return kept;
}

// Inputs of a block, in an order such that the four that lanes load together lie in words that meet
// no bank twice, where there is such an order: rows are swizzled by 16 bytes, so words at different
// places of 16 bytes never do. -1 - i: a slot that nobody needs, which loads input i.
std::vector<int32_t> ordered(const std::vector<bool>& kept, int64_t block, int32_t steps) {
  std::vector<int32_t> of_word[kLanes];
  for (int32_t i = kBlock; i-- > 0;) {
    if (kept[static_cast<size_t>(block * kBlock + i)]) of_word[i % 16 / 4].push_back(i);
  }
  std::vector<int32_t> found;
  for (int32_t load = 0; load < steps * kLoads; load++) {
    bool is_taken[kLanes] = {};
    for (int32_t lane = 0; lane < kLanes; lane++) {
      int best = -1;
      for (int w = 0; w < kLanes; w++) {
        if (is_taken[w] || of_word[w].empty()) continue;
        if (best < 0 || of_word[w].size() > of_word[best].size()) best = w;
      }
      // A slot must stay free only where others hold all that is left.
      const size_t left = of_word[0].size() + of_word[1].size() + of_word[2].size() +
                          of_word[3].size();
      const auto slots = static_cast<size_t>((steps * kLoads - load) * kLanes - lane);
      if (best < 0 && left == slots) {  // every slot is needed: two of a word
        for (int w = 0; w < kLanes; w++) {
          if (best < 0 || of_word[w].size() > of_word[best].size()) best = w;
        }
      }
      if (best < 0) {
        const auto free = std::find(is_taken, is_taken + kLanes, false) - is_taken;
        is_taken[free] = true;
        found.push_back(static_cast<int32_t>(-1 - 4 * free));
        continue;
      }
      is_taken[best] = true;
      found.push_back(of_word[best].back());
      of_word[best].pop_back();
    }
  }
  return found;
}

// Where of 32 bytes of K the product takes the byte that a lane loads as number `load`.
int32_t column_of(int32_t load, int32_t lane) { return load / 4 * 16 + lane * 4 + load % 4; }

}  // namespace

int32_t gather_steps(const WeightRows& rows, int32_t k_padded, int32_t channels) {
  int64_t most = 1;
  for (int64_t first = 0; first < rows.n; first += channels) {
    const std::vector<bool> kept = kept_by(rows, k_padded, first, channels);
    for (int64_t block = 0; block < blocks_of(k_padded); block++) {
      const auto begin = kept.begin() + block * kBlock;
      most = std::max<int64_t>(most, std::count(begin, begin + kBlock, true));
    }
  }
  const auto steps = static_cast<int32_t>((most + 31) / 32);
  return steps <= kMostSteps ? steps : 0;
}

std::vector<uint8_t> pack_gathered(const WeightRows& rows, int32_t k_padded, const GatherShape& s,
                                   int32_t pixel_bytes) {
  std::vector<uint8_t> image(static_cast<size_t>(gathered_bytes(s, rows.n, k_padded)), 0);
  const int64_t blocks = blocks_of(k_padded), tiles = (rows.n + s.channels - 1) / s.channels;
  const int32_t width = 32 * s.steps;
  std::vector<int8_t> padded(static_cast<size_t>(blocks * kBlock));
  for (int64_t tile = 0; tile < tiles; tile++) {
    const std::vector<bool> kept = kept_by(rows, k_padded, tile * s.channels, s.channels);
    std::vector<std::vector<int32_t>> inputs;
    for (int64_t block = 0; block < blocks; block++) {
      inputs.push_back(ordered(kept, block, s.steps));
      uint8_t* places = image.data() + (tile * blocks + block) * gathered_block_bytes(s) +
                        int64_t{s.channels} * width;
      for (int32_t i = 0; i < 32 * s.steps; i++) {
        const int32_t step = i / 32, load = i % 32 / kLanes, lane = i % kLanes;
        const int32_t wanted = inputs.back()[static_cast<size_t>(i)];
        const int32_t input = wanted < 0 ? -1 - wanted : wanted;
        const int32_t place = input / pixel_bytes * pixel_bytes * kGatherRows + input % pixel_bytes;
        const int64_t at = (step * 32 + lane * kLoads + load) * 2;
        places[at] = static_cast<uint8_t>(place);
        places[at + 1] = static_cast<uint8_t>(place >> 8);
      }
    }
    for (int32_t row = 0; row < s.channels; row++) {
      // Of 32 channels each, as fragments lie (docs/layouts.md).
      const int32_t block = row % 32 / 8, lane = row % 8 / 2, second = row % 2;
      const int64_t channel =
          tile * s.channels + row / 32 * 32 + lane * 8 + block * 2 + second;
      if (channel >= rows.n) continue;
      pad_row(rows, channel, padded);
      for (int64_t b = 0; b < blocks; b++) {
        uint8_t* to = image.data() + (tile * blocks + b) * gathered_block_bytes(s);
        for (int32_t i = 0; i < 32 * s.steps; i++) {
          const int32_t input = inputs[static_cast<size_t>(b)][static_cast<size_t>(i)];
          if (input < 0) continue;
          const int32_t column = i / 32 * 32 + column_of(i % 32 / kLanes, i % kLanes);
          // Rows of 32 or 64 bytes, of which 16 are moved together.
          const int32_t turn = width == 64 ? row / 2 & 3 : row / 4 & 1;
          const int32_t at = row * width + (column / 16 ^ turn) * 16 + column % 16;
          to[at] = static_cast<uint8_t>(padded[static_cast<size_t>(b * kBlock + input)]);
        }
      }
    }
  }
  return image;
}

}  // namespace fastinfer::cuda
