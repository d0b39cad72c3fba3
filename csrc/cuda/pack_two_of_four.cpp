#include "pack_two_of_four.h"

#include <algorithm>

namespace fastinfer::cuda {
namespace {

// The two of four neighbours that are stored, and where they stand. Places rise, as the hardware
// wants it, where fewer than two are needed too.
struct Pair {
  int8_t value[2];
  int place[2];
};

Pair pair_of(const int8_t (&four)[4]) {
  int place[2] = {0, 0}, count = 0;
  for (int i = 0; i < 4; i++) {
    if (four[i] != 0 && count < 2) place[count++] = i;
  }
  if (count == 0) place[1] = 1;
  if (count == 1) {
    if (place[0] == 3) {
      place[0] = 0;
      place[1] = 3;
    } else {
      place[1] = 3;
    }
  }
  return {{four[place[0]], four[place[1]]}, {place[0], place[1]}};
}

// Row of a panel -> channel: a lane's rows l / 4 and l / 4 + 8 of a warp's 16 are two neighbours.
int64_t channel_of(int64_t row) { return row / 16 * 16 + row % 8 * 2 + row / 8 % 2; }

// Rows of 64 bytes, of which 16 are moved together: as bulk copies swizzle them.
int64_t stored_at(int64_t row, int64_t column) {
  return row * 64 + ((column / 16 ^ (row / 2 & 3)) * 16 + column % 16);
}

// Where the places of the stored values `column`.. + 15 of a row are: a word of a thread.
int64_t word_at(int64_t row, int64_t column) {
  const int64_t step = column / 32, half = column / 16 % 2;
  const int64_t thread = row / 16 * 32 + row % 8 * 4 + half * 2 + row / 8 % 2;
  return thread * 2 + step;
}

}  // namespace

bool is_two_of_four(const WeightRows& rows) {
  for (int64_t r = 0; r < int64_t{rows.n} * (rows.k / rows.run); r++) {
    const int8_t* run = rows.data + r * rows.run;
    for (int32_t i = 0; i < rows.run; i += 4) {
      const int32_t end = std::min(i + 4, rows.run);
      if (std::count(run + i, run + end, int8_t{0}) < end - i - 2) return false;
    }
  }
  return true;
}

std::vector<uint8_t> pack_two_of_four(const WeightRows& rows, int32_t k_padded) {
  std::vector<uint8_t> image(static_cast<size_t>(two_of_four_bytes(rows.n, k_padded)), 0);
  const int64_t blocks = (k_padded + kTwoOfFourBlock - 1) / kTwoOfFourBlock;
  const int64_t panels = (rows.n + kTwoOfFourPanel - 1) / kTwoOfFourPanel;
  std::vector<int8_t> padded(static_cast<size_t>(blocks * kTwoOfFourBlock));
  for (int64_t at = 0; at < panels * kTwoOfFourPanel; at++) {
    const int64_t row = at % kTwoOfFourPanel;
    const int64_t channel = at - row + channel_of(row);
    std::fill(padded.begin(), padded.end(), int8_t{0});
    for (int32_t r = 0; channel < rows.n && r < rows.k / rows.run; r++) {
      std::copy_n(rows.data + channel * rows.k + int64_t{r} * rows.run, rows.run,
                  padded.data() + int64_t{r} * rows.run_padded);
    }
    for (int64_t block = 0; block < blocks; block++) {
      uint8_t* to = image.data() + (at / kTwoOfFourPanel * blocks + block) * kTwoOfFourBytes;
      auto* words = to + 64 * 64;
      for (int64_t quad = 0; quad < kTwoOfFourBlock / 4; quad++) {
        int8_t four[4];
        std::copy_n(padded.data() + block * kTwoOfFourBlock + quad * 4, 4, four);
        const Pair pair = pair_of(four);
        const int64_t column = quad * 2;
        for (int i = 0; i < 2; i++) {
          to[stored_at(row, column + i)] = static_cast<uint8_t>(pair.value[i]);
          const int64_t bit = (column + i) % 16 * 2;
          words[word_at(row, column) * 4 + bit / 8] |=
              static_cast<uint8_t>(pair.place[i] << (bit % 8));
        }
      }
    }
  }
  return image;
}

}  // namespace fastinfer::cuda
