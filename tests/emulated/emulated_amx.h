// The tile registers of csrc/cpu/micro/tile_registers.h as plain C++, for tests on CPUs without AMX.
//
// What the Intrinsics Guide says of each instruction, within the rows and bytes that are configured; a
// register that is not, or one of another shape than a product needs, is an error as on the CPU.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace emulated {

struct Tiles {
  struct State {
    uint8_t bytes[8][16][64];
    uint8_t rows[8];
    uint16_t row_bytes[8];
  };
  static State& state() {
    static thread_local State now{};
    return now;
  }
  static void require(bool holds) {
    if (!holds) std::abort();
  }

  template <class Config>
  static void configure(const Config& config) {
    State& s = state();
    std::memset(&s, 0, sizeof(s));
    require(config.palette == 1 && config.start_row == 0);
    for (int t = 0; t < 8; t++) {
      require(config.rows[t] <= 16 && config.row_bytes[t] <= 64);
      s.rows[t] = config.rows[t];
      s.row_bytes[t] = config.row_bytes[t];
    }
  }
  static void release() { std::memset(&state(), 0, sizeof(State)); }

  template <int T>
  static void load(const void* p, int64_t stride) {
    State& s = state();
    require(s.rows[T] > 0);
    for (int r = 0; r < s.rows[T]; r++) {
      std::memcpy(s.bytes[T][r], static_cast<const uint8_t*>(p) + r * stride, s.row_bytes[T]);
    }
  }
  template <int T>
  static void load_past_l1(const void* p, int64_t stride) {
    load<T>(p, stride);
  }
  template <int T>
  static void store(void* p, int64_t stride) {
    const State& s = state();
    require(s.rows[T] > 0);
    for (int r = 0; r < s.rows[T]; r++) {
      std::memcpy(static_cast<uint8_t*>(p) + r * stride, s.bytes[T][r], s.row_bytes[T]);
    }
  }
  template <int Acc, int A, int B>
  static void dot_u8s8() {
    State& s = state();
    require(s.rows[Acc] == s.rows[A] && s.row_bytes[Acc] == s.row_bytes[B] &&
            s.row_bytes[A] == s.rows[B] * 4 && s.rows[A] > 0);
    for (int m = 0; m < s.rows[Acc]; m++) {
      dot_row(s.bytes[Acc][m], s.bytes[A][m], s.bytes[B], s.rows[B], s.row_bytes[Acc] / 4);
    }
  }

  // Optimized in a build that is not: most of the time of the emulated suite would be here.
  __attribute__((optimize("O3"))) static void dot_row(uint8_t* to, const uint8_t* a,
                                                      const uint8_t (*b)[64], int quads,
                                                      int count) {
    int32_t sums[16];
    std::memcpy(sums, to, sizeof(sums));
    for (int q = 0; q < quads; q++, a += 4) {
      const auto* w = reinterpret_cast<const int8_t*>(b[q]);
      for (int n = 0; n < count; n++) {
        sums[n] += a[0] * w[4 * n] + a[1] * w[4 * n + 1] + a[2] * w[4 * n + 2] +
                   a[3] * w[4 * n + 3];
      }
    }
    std::memcpy(to, sums, sizeof(sums));
  }
};

}  // namespace emulated
