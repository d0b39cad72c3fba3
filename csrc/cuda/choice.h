// The config in force: choose_config's, unless a test or a benchmark asks for another.
#pragma once

#include <optional>
#include <string>

#include "gemm.h"
#include "int8_depthwise.h"
#include "int8_first_conv.h"

namespace fastinfer::cuda {

GemmConfig config_in_force(const GemmDesc& desc);

// Of a first layer; none where another kernel does it, or a test asks for one.
std::optional<FirstConvConfig> first_conv_in_force(const GemmCall& call, int32_t multiprocessors);

// Whether int8_prepack makes an image for sparse tensor cores of weights that can have one: where
// it pays for many rows, never, or always. A weight packed under "never" stays dense.
enum class SparseMode { kAuto, kNever, kAlways };
SparseMode sparse_in_force();

// The config that force_config asks for: a weight is packed for it where its zeros allow.
std::optional<GemmConfig> forced_config();

// mode: "auto", "never" or "always". Throws std::invalid_argument for others.
void set_sparse(const std::string& mode);

// Has products use a kernel ("mma", "wgmma"; of sparse weights "sparse_mma", "sparse_wgmma",
// "gather_wgmma", "patch_wgmma") with a tile shape wherever it can run; an empty name gives the
// choice back. Throws std::invalid_argument for what does not exist.
void force_config(const std::string& kernel, int block_m, int block_n, int cluster);

// The same of depthwise convolutions by strips: other lengths of a strip and lanes of a block.
DepthwiseConfig depthwise_in_force(const GemmCall& call, bool float_output);

// Zeros give the choice back. Throws std::invalid_argument for what cannot run.
void force_depthwise(int strip, int lanes);

}  // namespace fastinfer::cuda
