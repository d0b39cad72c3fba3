#include "choice.h"

#include <mutex>
#include <stdexcept>

namespace fastinfer::cuda {
namespace {

std::mutex mutex;
std::optional<GemmConfig> forced;
SparseMode sparse_mode = SparseMode::kAuto;
int forced_strip = 0, forced_lanes = 0;

}  // namespace

GemmConfig config_in_force(const GemmDesc& desc) {
  const GemmConfig chosen = choose_config(desc);
  const std::lock_guard lock(mutex);
  if (!forced) return chosen;
  GemmConfig config = *forced;
  config.source = desc.source;
  if (config.kernel == GemmKernel::kMma) return config;
  if (config.kernel != GemmKernel::kWgmma) {  // of sparse weights
    const bool is_gather =
        config.kernel == GemmKernel::kGatherWgmma || config.kernel == GemmKernel::kPatchWgmma;
    const bool is_other = is_gather && desc.gather_channels != config.block_n;
    return takes_sparse(desc, config.kernel) && !is_other ? config : chosen;
  }
  const bool can_run = desc.capability == 90 && (desc.source == RowSource::kMatrix ||
                                                 desc.source == RowSource::kPixels);
  return can_run ? config : chosen;
}

std::optional<FirstConvConfig> first_conv_in_force(const GemmCall& call, int32_t multiprocessors) {
  {
    const std::lock_guard lock(mutex);
    if (forced) return std::nullopt;
  }
  return choose_first_conv(call, multiprocessors);
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
  } else if (kernel == "sparse_wgmma") {
    config.kernel = GemmKernel::kSparseWgmma;
  } else if (kernel == "gather_wgmma") {
    config.kernel = GemmKernel::kGatherWgmma;
  } else if (kernel == "patch_wgmma") {
    config.kernel = GemmKernel::kPatchWgmma;
  } else if (kernel == "sparse_mma") {
    config.kernel = GemmKernel::kSparseMma;
  } else if (kernel != "mma") {
    throw std::invalid_argument(
        "force_config: expected kernel mma, wgmma, sparse_mma, sparse_wgmma, gather_wgmma, "
        "patch_wgmma or '', got " + kernel);
  }
  std::vector<GemmConfig> all = known_configs();
  for (const GemmConfig& sparse : known_sparse_configs()) all.push_back(sparse);
  for (const GemmConfig& gather : known_gather_configs()) all.push_back(gather);
  for (const GemmConfig& known : all) {
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

std::optional<GemmConfig> forced_config() {
  const std::lock_guard lock(mutex);
  return forced;
}

SparseMode sparse_in_force() {
  const std::lock_guard lock(mutex);
  return sparse_mode;
}

void set_sparse(const std::string& mode) {
  const bool is_auto = mode == "auto", is_never = mode == "never";
  if (!is_auto && !is_never && mode != "always") {
    throw std::invalid_argument("set_sparse: expected mode auto, never or always, got " + mode);
  }
  const std::lock_guard lock(mutex);
  sparse_mode = is_auto ? SparseMode::kAuto : is_never ? SparseMode::kNever : SparseMode::kAlways;
}

DepthwiseConfig depthwise_in_force(const GemmCall& call, bool float_output) {
  DepthwiseConfig config = choose_depthwise(call, float_output);
  const std::lock_guard lock(mutex);
  if (config.kernel == 0 || forced_strip == 0) return config;
  config.strip = forced_strip;
  config.lanes = forced_lanes;
  return config;
}

void force_depthwise(int strip, int lanes) {
  const bool is_choice = strip == 0 && lanes == 0;
  const bool is_valid = strip >= 1 && lanes >= 1 && lanes <= 128 && (lanes & (lanes - 1)) == 0;
  if (!is_choice && !is_valid) {
    throw std::invalid_argument(
        "force_depthwise: expected strip >= 1 and lanes a power of two up to 128, got " +
        std::to_string(strip) + " and " + std::to_string(lanes));
  }
  const std::lock_guard lock(mutex);
  forced_strip = strip;
  forced_lanes = lanes;
}

}  // namespace fastinfer::cuda
