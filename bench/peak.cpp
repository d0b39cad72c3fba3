// Measures what this CPU can do at most: int8 dot products, float FMA, reading memory.
//
// Prints one JSON object: GOPS (2 operations per multiply-add) and GB/s for the number of threads
// given as first argument. Built and run by harness.py with -O2 and -mavx2 -mfma; the AVX-512 parts
// carry their own target and run only where the CPU has them.

#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

namespace {

constexpr int kChains = 12;  // independent accumulators, enough for latency 5 on two ports
constexpr int kRepeats = 9;

double seconds() {
  using Clock = std::chrono::steady_clock;
  return std::chrono::duration<double>(Clock::now().time_since_epoch()).count();
}

// Keeps a value alive and opaque, so that the compiler neither folds nor drops the chain.
template <typename Vec>
inline void opaque(Vec& value) {
  asm volatile("" : "+x"(value));
}

// vpdpbusd on zmm: 64 multiply-adds each.
__attribute__((target("avx512f,avx512vnni"))) void dot_vnni(long rounds) {
  __m512i acc[kChains], a = _mm512_setzero_si512(), b = a;
  asm volatile("" : "+v"(a), "+v"(b));
  for (auto& x : acc) x = _mm512_setzero_si512();
  for (long r = 0; r < rounds; ++r) {
#pragma GCC unroll 12
    for (auto& x : acc) asm volatile("vpdpbusd %2, %1, %0" : "+v"(x) : "v"(a), "v"(b));
  }
}

// tdpbusd: 16 x 16 x 64 multiply-adds each, four sums. kChains: as the other kernels are counted.
__attribute__((target("amx-tile,amx-int8"))) void dot_amx(long rounds) {
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  if (syscall(SYS_arch_prctl, kRequestPermission, kTileData) != 0) return;
  struct alignas(64) Config {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  };
  const Config config;
  asm volatile("ldtilecfg %0" : : "m"(config));
  for (long r = 0; r < rounds; ++r) {
#pragma GCC unroll 3
    for (int i = 0; i < kChains / 4; i++) {
      asm volatile(
          "tdpbusd %tmm6, %tmm4, %tmm0\n\ttdpbusd %tmm7, %tmm4, %tmm1\n\t"
          "tdpbusd %tmm6, %tmm5, %tmm2\n\ttdpbusd %tmm7, %tmm5, %tmm3");
    }
  }
  asm volatile("tilerelease");
}

bool has_amx() {
  unsigned a, b, c, d;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (d >> 24 & 1) && (d >> 25 & 1);
}

// The exact AVX2 form: vpmaddwd on 16-bit values and an add, 16 multiply-adds each.
void dot_avx2_exact(long rounds) {
  __m256i acc[kChains], a = _mm256_setzero_si256(), b = a;
  opaque(a);
  opaque(b);
  for (auto& x : acc) x = _mm256_setzero_si256();
  for (long r = 0; r < rounds; ++r) {
#pragma GCC unroll 12
    for (auto& x : acc) {
      __m256i product;
      asm volatile("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0"
                   : "+x"(x), "=&x"(product)
                   : "x"(a), "x"(b));
    }
  }
}

// The saturating AVX2 form: vpmaddubsw, vpmaddwd by ones, add: 32 multiply-adds each.
void dot_avx2_saturating(long rounds) {
  __m256i acc[kChains], a = _mm256_setzero_si256(), b = a, ones = _mm256_set1_epi16(1);
  opaque(a);
  opaque(b);
  opaque(ones);
  for (auto& x : acc) x = _mm256_setzero_si256();
  for (long r = 0; r < rounds; ++r) {
#pragma GCC unroll 12
    for (auto& x : acc) {
      __m256i product;
      asm volatile("vpmaddubsw %3, %2, %1\n\tvpmaddwd %4, %1, %1\n\tvpaddd %1, %0, %0"
                   : "+x"(x), "=&x"(product)
                   : "x"(a), "x"(b), "x"(ones));
    }
  }
}

__attribute__((target("avx512f"))) void fma_avx512(long rounds) {
  __m512 acc[kChains], a = _mm512_setzero_ps(), b = a;
  asm volatile("" : "+v"(a), "+v"(b));
  for (auto& x : acc) x = _mm512_setzero_ps();
  for (long r = 0; r < rounds; ++r) {
#pragma GCC unroll 12
    for (auto& x : acc) asm volatile("vfmadd231ps %2, %1, %0" : "+v"(x) : "v"(a), "v"(b));
  }
}

void fma_avx2(long rounds) {
  __m256 acc[kChains], a = _mm256_setzero_ps(), b = a;
  opaque(a);
  opaque(b);
  for (auto& x : acc) x = _mm256_setzero_ps();
  for (long r = 0; r < rounds; ++r) {
#pragma GCC unroll 12
    for (auto& x : acc) asm volatile("vfmadd231ps %2, %1, %0" : "+x"(x) : "x"(a), "x"(b));
  }
}

void read_bytes(const uint8_t* data, size_t bytes, long rounds) {
  __m256i sum[4] = {};
  for (long r = 0; r < rounds; ++r) {
    for (size_t i = 0; i < bytes; i += 128) {
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) {
        const auto* from = reinterpret_cast<const __m256i*>(data + i + 32 * j);
        sum[j] = _mm256_xor_si256(sum[j], _mm256_load_si256(from));
      }
    }
    for (auto& x : sum) opaque(x);
  }
}

// A peak is the best run: anything slower was disturbed.
double best_seconds(int threads, const std::function<void(int)>& work) {
  std::vector<double> times;
  for (int repeat = 0; repeat < kRepeats; ++repeat) {
    const double start = seconds();
    std::vector<std::thread> others;
    for (int t = 1; t < threads; ++t) others.emplace_back(work, t);
    work(0);
    for (auto& other : others) other.join();
    times.push_back(seconds() - start);
  }
  return *std::min_element(times.begin(), times.end());
}

double gops(int threads, void (*kernel)(long), int multiply_adds, long rounds = 1'000'000) {
  const double time = best_seconds(threads, [&](int) { kernel(rounds); });
  return 2.0 * multiply_adds * kChains * rounds * threads / time / 1e9;
}

double read_gbs(int threads, size_t bytes_per_thread) {
  struct Free {
    void operator()(uint8_t* p) const { std::free(p); }
  };
  std::vector<std::unique_ptr<uint8_t, Free>> blocks;
  for (int t = 0; t < threads; ++t) {
    blocks.emplace_back(static_cast<uint8_t*>(std::aligned_alloc(4096, bytes_per_thread)));
    std::fill_n(blocks.back().get(), bytes_per_thread, uint8_t{1});
  }
  const long rounds = std::max<long>(1, static_cast<long>((256u << 20) / bytes_per_thread));
  const double time = best_seconds(
      threads, [&](int t) { read_bytes(blocks[t].get(), bytes_per_thread, rounds); });
  return static_cast<double>(bytes_per_thread) * rounds * threads / time / 1e9;
}

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::max(1, std::atoi(argv[1])) : 1;
  const bool has_avx512 = __builtin_cpu_supports("avx512f");
  const bool has_vnni = __builtin_cpu_supports("avx512vnni");
  const double exact = gops(threads, dot_avx2_exact, 16);
  std::printf("{\"threads\": %d, \"int8_form\": \"%s\", ", threads,
              has_vnni ? "vpdpbusd zmm" : "vpmaddwd ymm");
  std::printf("\"int8_gops\": %.1f, ", has_vnni ? gops(threads, dot_vnni, 64) : exact);
  if (has_amx()) {
    std::printf("\"int8_amx_gops\": %.1f, ", gops(threads, dot_amx, 16 * 16 * 64, 30'000));
  }
  std::printf("\"int8_avx2_exact_gops\": %.1f, ", exact);
  std::printf("\"int8_avx2_saturating_gops\": %.1f, ", gops(threads, dot_avx2_saturating, 32));
  const double fma = has_avx512 ? gops(threads, fma_avx512, 16) : gops(threads, fma_avx2, 8);
  std::printf("\"fp32_gflops\": %.1f, ", fma);
  std::printf("\"read_l2_gbs\": %.1f, ", read_gbs(threads, 256u << 10));
  std::printf("\"read_dram_gbs\": %.1f}\n", read_gbs(threads, 128u << 20));
  return 0;
}
