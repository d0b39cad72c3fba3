#include "read_once.h"

#include <cpuid.h>

#include <limits>

namespace fastinfer {
namespace {

constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

bool is_amd() {
  __builtin_cpu_init();
  return __builtin_cpu_is("amd") != 0;
}

// Of this core's L3: some versions of glibc tell the sum of all.
int64_t l3_bytes_of_amd() {
  constexpr unsigned kCacheTopology = 0x8000001D, kLevel3 = 3;
  unsigned a, b, c, d;
  for (unsigned i = 0; __get_cpuid_count(kCacheTopology, i, &a, &b, &c, &d) != 0; i++) {
    if ((a & 0x1f) == 0) break;
    if (((a >> 5) & 0x7) != kLevel3) continue;
    const int64_t ways = (b >> 22) + 1, partitions = ((b >> 12) & 0x3ff) + 1;
    return ways * partitions * ((b & 0xfff) + 1) * (int64_t{c} + 1);
  }
  return 0;
}

int64_t find_least_bytes() {
  const int64_t l3 = is_amd() ? l3_bytes_of_amd() : 0;
  return l3 > 0 ? l3 / 4 : kNever;
}

// Found when the library is loaded: see isa.cpp.
const int64_t least_bytes = find_least_bytes();

}  // namespace

bool are_read_once(int64_t weight_bytes) { return weight_bytes > least_bytes; }

}  // namespace fastinfer
