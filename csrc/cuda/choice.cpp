#include "choice.h"

#include <mutex>
#include <stdexcept>

namespace fastinfer::cuda {
namespace {

std::mutex mutex;
std::optional<GemmConfig> forced;

}  // namespace

GemmConfig config_in_force(const GemmDesc& desc) {
  const GemmConfig chosen = choose_config(desc);
  const std::lock_guard lock(mutex);
  if (!forced) return chosen;
  GemmConfig config = *forced;
  config.source = desc.source;
  if (config.kernel == GemmKernel::kMma) return config;
  const bool can_run = desc.capability == 90 && (desc.source == RowSource::kMatrix ||
                                                 desc.source == RowSource::kPixels);
  return can_run ? config : chosen;
}

void force_config(const std::string& kernel, int block_m, int block_n, int cluster) {
  const std::lock_guard lock(mutex);
  if (kernel.empty()) {
    forced.reset();
    return;
  }
  GemmConfig config{GemmKernel::kMma, RowSource::kMatrix, block_m, block_n, cluster};
  if (kernel == "wgmma") {
    config.kernel = GemmKernel::kWgmma;
  } else if (kernel != "mma") {
    throw std::invalid_argument("force_config: expected kernel mma, wgmma or '', got " + kernel);
  }
  for (const GemmConfig& known : known_configs()) {
    if (known.kernel == config.kernel && known.block_m == block_m && known.block_n == block_n &&
        known.cluster == cluster) {
      forced = config;
      return;
    }
  }
  throw std::invalid_argument("force_config: no kernel " + kernel + " with tiles " +
                              std::to_string(block_m) + " x " + std::to_string(block_n) +
                              " and clusters of " + std::to_string(cluster));
}

}  // namespace fastinfer::cuda
