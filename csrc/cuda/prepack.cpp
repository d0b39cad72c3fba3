// int8_prepack: canonical weights and vectors -> the buffer the CUDA kernels read.
//
// Packing happens once for a model, on the host; the buffer is then copied to the weight's device.
#include "../prepack.h"

#include <algorithm>
#include <cmath>

#include "choice.h"
#include "int8_depthwise.h"
#include "ops.h"
#include "pack_gathered.h"
#include "packed_headers.h"
#include "packed_sizes.h"

namespace fastinfer::cuda {
namespace {

constexpr const char* kOp = "int8_prepack";
constexpr int32_t kPanel = 32;

// The channel of a panel that stands in row `row` of it. In a tensor core's result a lane holds
// columns 2 t and 2 t + 1 of every 8; in this order the eight it holds of a panel are neighbours.
int32_t panel_channel(int32_t row) {
  const int32_t block = row / 8, lane = row % 8 / 2, second = row % 2;
  return lane * 8 + block * 2 + second;
}

// [n][k] -> [group][panel][32][k / run][padded_run].
std::vector<int8_t> pack_fragments(const int8_t* weight, const PackedHeader& h) {
  const int64_t per_group = h.n / h.groups, runs = h.k / h.run, width = padded_k(h);
  const int64_t rows = int64_t{h.groups} * h.panels_per_group * kPanel;
  std::vector<int8_t> out(static_cast<size_t>(rows * width), 0);
  for (int64_t row = 0; row < rows; row++) {
    const int64_t panel = row / kPanel, group = panel / h.panels_per_group;
    const int64_t channel = panel % h.panels_per_group * kPanel +
                            panel_channel(static_cast<int32_t>(row % kPanel));
    if (channel >= per_group) continue;
    const int8_t* from = weight + (group * per_group + channel) * h.k;
    int8_t* to = out.data() + row * width;
    for (int64_t r = 0; r < runs; r++) {
      std::copy_n(from + r * h.run, h.run, to + r * padded_run(h.run));
    }
  }
  return out;
}

// [n][kh][kw] -> [kw][kh / 4][channel, padded to panels][4]: a word holds four taps of a column.
std::vector<int8_t> pack_columns(const int8_t* weight, const PackedHeader& h) {
  const int64_t quads = depthwise_quads(h.kh), padded = int64_t{h.panels_per_group} * h.nr;
  std::vector<int8_t> out(static_cast<size_t>(h.kw * quads * padded * 4), 0);
  for (int64_t channel = 0; channel < h.n; channel++) {
    for (int64_t row = 0; row < h.kh; row++) {
      for (int64_t column = 0; column < h.kw; column++) {
        const int64_t word = (column * quads + row / 4) * padded + channel;
        out[static_cast<size_t>(word * 4 + row % 4)] = *weight++;
      }
    }
  }
  return out;
}

// A vector of each group, padded to whole panels.
template <class T>
std::vector<T> pad_groups(const T* values, const PackedHeader& h) {
  const int64_t per_group = h.n / h.groups, width = int64_t{h.panels_per_group} * h.nr;
  std::vector<T> out(static_cast<size_t>(h.groups * width), T{});
  for (int64_t g = 0; g < h.groups; g++) {
    std::copy_n(values + g * per_group, per_group, out.data() + g * width);
  }
  return out;
}

// The sum of each channel's weights.
std::vector<int32_t> channel_sums(const int8_t* weight, const PackedHeader& h) {
  std::vector<int32_t> sums(static_cast<size_t>(h.n), 0);
  for (int32_t& sum : sums) {
    for (int32_t k = 0; k < h.k; k++) sum += *weight++;
  }
  return sums;
}

// Products of so many rows are what a sparse image is made for; which kernel serves a call is
// chosen again with its own number of rows.
constexpr int64_t kManyRows = 1 << 16;

// With fewer zeros in 100 no sparse kernel has anything to leave out.
constexpr int64_t kLeastZeros = 40;

// What a weight's zeros allow: a 2:4 image, or one of channels that keep the same inputs, where a
// kernel for it would be faster than the dense one.
struct SparseChoice {
  bool is_two_of_four = false;
  GatherShape gather{0, 0};
};

GemmDesc desc_of(const PackedHeader& h, const DeviceFacts& facts) {
  GemmDesc desc{kManyRows, h.n / h.groups, padded_k(h), h.groups, RowSource::kMatrix,
                facts.capability, facts.multiprocessors, true};
  const bool is_pixels = h.kh * h.kw > 1 || h.groups > 1;
  if (is_pixels) desc.source = h.run % 32 == 0 ? RowSource::kPixels : RowSource::kWindows;
  desc.pixel_bytes = pixel_bytes(h.run);
  return desc;
}

// Whether packing for a kernel is left open, or asked for by forcing it.
bool is_asked(const std::optional<GemmConfig>& forced, GemmKernel kernel, int32_t channels) {
  if (!forced || forced->kernel == GemmKernel::kMma || forced->kernel == GemmKernel::kWgmma) {
    return true;
  }
  const GemmKernel wanted = forced->kernel == GemmKernel::kPatchWgmma ? GemmKernel::kGatherWgmma
                                                                      : forced->kernel;
  return wanted == kernel && (channels == 0 || forced->block_n == channels);
}

// The steps that every group's channels can do with; 0: none has anything to gain.
int32_t steps_of_groups(const int8_t* weight, const PackedHeader& h, int32_t channels) {
  const int32_t per_group = h.n / h.groups;
  int32_t steps = 0;
  for (int32_t g = 0; g < h.groups; g++) {
    const WeightRows rows{weight + int64_t{g} * per_group * h.k, per_group, h.k, h.run,
                          padded_run(h.run)};
    const int32_t needed = gather_steps(rows, padded_k(h), channels);
    if (needed == 0) return 0;
    steps = std::max(steps, needed);
  }
  return steps;
}

SparseChoice choose_sparse(const int8_t* weight, const PackedHeader& h, const DeviceFacts& facts) {
  const SparseMode mode = sparse_in_force();
  const bool is_linear = h.op == static_cast<int32_t>(PackedOp::kLinear);
  const bool can_run = h.run % 16 == 0;
  const int64_t all = int64_t{h.n} * h.k;
  const bool has_zeros = std::count(weight, weight + all, int8_t{0}) * 100 >= all * kLeastZeros;
  SparseChoice found;
  if (mode == SparseMode::kNever || !can_run || !has_zeros || facts.capability < 80) return found;
  const std::optional<GemmConfig> forced = forced_config();
  GemmDesc desc = desc_of(h, facts);
  double least = mode == SparseMode::kAlways ? INFINITY : dense_cost(desc) / kSparseMargin;
  const bool is_two_asked = is_asked(forced, GemmKernel::kSparseWgmma, 0) ||
                            is_asked(forced, GemmKernel::kSparseMma, 0);
  if (is_two_asked && two_of_four_cost(desc) < least &&
      is_two_of_four({weight, h.n, h.k, h.run, padded_run(h.run)})) {
    found.is_two_of_four = true;
    least = two_of_four_cost(desc);
  }
  // As rows of a matrix and as windows such pixels lie differently, and which comes is not known.
  if (!is_linear && h.kh * h.kw == 1 && h.run % 128 != 0 && h.run != 64) return found;
  if (facts.capability != 90 || (!is_linear && h.run % 64 != 0)) return found;
  for (const int32_t channels : {256, 128, 64}) {
    if (!is_asked(forced, GemmKernel::kGatherWgmma, channels)) continue;
    desc.gather_channels = channels;
    desc.gather_steps = 1;
    if (gather_cost(desc) >= least) continue;  // with the fewest steps
    desc.gather_steps = steps_of_groups(weight, h, channels);
    // 128 of 256 channels that keep the same inputs do, too.
    const bool is_built = desc.gather_steps == 1 || channels < 256;
    if (desc.gather_steps == 0 || !is_built || gather_cost(desc) >= least) continue;
    found = {false, {channels, desc.gather_steps}};
    least = gather_cost(desc);
  }
  return found;
}

// Beside the dense rows, which serve what sparse kernels cannot read and calls of few rows.
void add_sparse(const int8_t* weight, PackedHeader& h, const DeviceFacts& facts,
                PackedBuffer& buffer) {
  // Some kernels find their image by 32 bits.
  if (h.weight_bytes > (int64_t{1} << 30)) return;
  if (h.has(kFlagDynamic)) return;  // their epilogue is that of dense kernels
  const SparseChoice choice = choose_sparse(weight, h, facts);
  if (!choice.is_two_of_four && choice.gather.channels == 0) return;
  const int32_t per_group = h.n / h.groups;
  const bool is_linear = h.op == static_cast<int32_t>(PackedOp::kLinear);
  // A 1 x 1 convolution of stride 1 reads rows of a matrix, of 128 inputs too.
  const int32_t bytes = is_linear ? kTwoOfFourBlock : pixel_bytes(h.run);
  std::vector<uint8_t> images;
  for (int64_t g = 0; g < h.groups; g++) {
    const WeightRows rows{weight + g * per_group * h.k, per_group, h.k, h.run, padded_run(h.run)};
    const std::vector<uint8_t> image =
        choice.is_two_of_four ? pack_two_of_four(rows, padded_k(h))
                              : pack_gathered(rows, padded_k(h), choice.gather, bytes);
    images.insert(images.end(), image.begin(), image.end());
  }
  h.pixels = choice.gather.channels;
  h.index_bytes = static_cast<int64_t>(images.size());
  h.index = buffer.add(images);
}

Tensor on_host(const Tensor& t) {
  return torch::stable::to(t, torch::stable::Device(torch::headeronly::DeviceType::CPU));
}

std::optional<Tensor> on_host(const std::optional<Tensor>& t) {
  if (!t) return std::nullopt;
  return on_host(*t);
}

}  // namespace

Tensor int8_prepack_cuda(std::string op, Tensor weight, Tensor bias, Tensor multiplier,
                         std::optional<Tensor> residual_multiplier, std::optional<Tensor> table,
                         std::optional<Tensor> float_bias, int64_t groups, int64_t x_zero_point,
                         int64_t out_zero_point, int64_t qmin, int64_t qmax, double clamp_min,
                         double clamp_max, bool float_output, bool strided) {
  const DeviceScope scope(kOp, "weight", weight);
  PrepackInputs in{on_host(weight),
                   on_host(bias),
                   on_host(multiplier),
                   on_host(residual_multiplier),
                   on_host(table),
                   on_host(float_bias)};
  PackedHeader h = begin_prepack(in, op, groups, x_zero_point, out_zero_point, qmin, qmax,
                                 clamp_min, clamp_max, float_output, strided);
  const auto* w = static_cast<const int8_t*>(in.weight.const_data_ptr());
  PackedBuffer buffer;
  h.layout = kLayoutCuda;
  h.nr = kPanel;
  h.panels_per_group = (h.n / h.groups + kPanel - 1) / kPanel;
  const bool is_depthwise = h.op == static_cast<int32_t>(PackedOp::kDepthwiseConv2d);
  std::vector<int8_t> rows, windows;
  if (h.op == static_cast<int32_t>(PackedOp::kConv2d)) windows = window_order(w, h);
  const int8_t* in_order = windows.empty() ? w : windows.data();
  if (is_depthwise) {
    h.run = h.k;
    rows = pack_columns(w, h);
  } else {
    h.form = static_cast<int32_t>(GemmForm::kFragments);
    h.run = windows.empty() ? h.k : h.c_per_group;
    rows = pack_fragments(in_order, h);
  }
  h.weight_bytes = static_cast<int64_t>(rows.size());
  h.weight = buffer.add(rows);
  const auto add = [&](const auto* values) { return buffer.add(pad_groups(values, h)); };
  // Sparse kernels know no ranges of rows.
  const bool may_be_sparse = !is_depthwise && !in.float_bias.has_value();
  if (may_be_sparse) add_sparse(in_order, h, device_facts(scope.device()), buffer);
  h.bias = add(static_cast<const int32_t*>(in.bias.const_data_ptr()));
  h.multiplier = add(static_cast<const float*>(in.multiplier.const_data_ptr()));
  if (const auto* p = data_of<float>(in.residual_multiplier)) h.residual_multiplier = add(p);
  if (const auto* p = data_of<uint8_t>(in.table)) h.table = buffer.add(p, 256);
  if (const auto* p = data_of<float>(in.float_bias)) {
    // Kernels count on both right behind the multipliers; panels are whole alignments.
    static_assert(kPanel * sizeof(float) % kSectionAlign == 0);
    h.float_bias = add(p);
    h.weight_sum = add(channel_sums(w, h).data());
  }
  std::fill(buffer.bytes().begin() + kPaddingOffset, buffer.bytes().begin() + kPackedHeaderBytes,
            static_cast<uint8_t>(h.x_zero_point));
  const auto least = static_cast<int64_t>(buffer.bytes().size());
  buffer.bytes().resize(static_cast<size_t>(packed_sizes().claim(shape_key(h), least)), 0);
  const Tensor host = buffer.finish(h);
  Tensor out = scope.empty(sizes_of(host), ScalarType::Byte);
  torch::stable::copy_(out, host);
  remember_header(out.const_data_ptr(), h);
  return out;
}

}  // namespace fastinfer::cuda
