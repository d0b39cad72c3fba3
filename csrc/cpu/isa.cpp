#include "isa.h"

#include <cpuid.h>
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <atomic>
#include <stdexcept>

#include "kernel_table.h"

namespace fastinfer {
namespace {

constexpr Isa kAll[] = {Isa::kScalar, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Vnni, Isa::kAmx};

// Linux saves the tile registers of a process only after it has asked for that: once, for all threads.
bool may_use_tiles() {
#ifdef __linux__
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  static const bool granted = syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return granted;
#else
  return false;
#endif
}

bool cpu_has_tiles() {
  constexpr unsigned kAmxTile = 1u << 24, kAmxInt8 = 1u << 25;
  unsigned a, b, c, d;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (d & kAmxTile) && (d & kAmxInt8) &&
         may_use_tiles();
}

Isa best_isa() {
  Isa best = Isa::kScalar;
  for (Isa isa : kAll) {
    if (cpu_supports(isa)) best = isa;
  }
  return best;
}

std::atomic<Isa>& selected() {
  static std::atomic<Isa> isa{best_isa()};
  return isa;
}

// When the library is loaded: a child forked while another thread is in the first call would wait for it.
[[maybe_unused]] const std::atomic<Isa>& at_load = selected();
const bool is_amd = [] {
  __builtin_cpu_init();
  return __builtin_cpu_is("amd") != 0;
}();

}  // namespace

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::kScalar:
      return "scalar";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAvx512Vnni:
      return "avx512vnni";
    case Isa::kAmx:
      return "amx";
  }
  return "unknown";
}

bool cpu_supports(Isa isa) {
#ifdef FASTINFER_EMULATED_AVX512
  // A build for tests: the AVX-512 kernels run on functions that do what the instructions do.
  if (isa >= Isa::kAvx512) return true;
#endif
  __builtin_cpu_init();
  switch (isa) {
    case Isa::kScalar:
      return true;
    case Isa::kAvx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case Isa::kAvx512:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    case Isa::kAvx512Vnni:
      return cpu_supports(Isa::kAvx512) && __builtin_cpu_supports("avx512vnni") &&
             __builtin_cpu_supports("avx512vbmi");
    case Isa::kAmx:
      return cpu_supports(Isa::kAvx512Vnni) && cpu_has_tiles();
  }
  return false;
}

bool adds_beside_products() { return is_amd; }

std::vector<std::string> supported_isas() {
  std::vector<std::string> names;
  for (Isa isa : kAll) {
    if (cpu_supports(isa)) names.emplace_back(isa_name(isa));
  }
  return names;
}

Isa current_isa() { return selected().load(std::memory_order_relaxed); }

void set_isa(const std::string& name) {
  for (Isa isa : kAll) {
    if (name != isa_name(isa)) continue;
    if (!cpu_supports(isa)) {
      throw std::invalid_argument("set_isa: this CPU has no " + name);
    }
    selected().store(isa, std::memory_order_relaxed);
    return;
  }
  throw std::invalid_argument("set_isa: expected scalar, avx2, avx512, avx512vnni or amx, got " + name);
}

const KernelTable& table_of(Isa isa) {
  switch (isa) {
    case Isa::kAvx2:
      return kAvx2Table;
    case Isa::kAvx512:
      return kAvx512Table;
    case Isa::kAvx512Vnni:
      return kAvx512VnniTable;
    case Isa::kAmx:
      return kAmxTable;
    default:
      return kScalarTable;
  }
}

}  // namespace fastinfer
