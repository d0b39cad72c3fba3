// int8_prepack: canonical weights and vectors -> the buffer the kernels of one ISA read.
#include <algorithm>
#include <cmath>

#include "../tensor_check.h"
#include "ops.h"
#include "kernel_table.h"
#include "pack_pairs.h"
#include "packed_view.h"

namespace fastinfer {
namespace {

constexpr const char* kOp = "int8_prepack";

// Grows a buffer section by section; offsets stay aligned.
class Buffer {
 public:
  Buffer() : bytes_(kPackedHeaderBytes, 0) {}

  int64_t add(const void* data, size_t size) {
    const auto start = static_cast<int64_t>(bytes_.size());
    const auto* p = static_cast<const uint8_t*>(data);
    bytes_.insert(bytes_.end(), p, p + size);
    bytes_.resize((bytes_.size() + kSectionAlign - 1) / kSectionAlign * kSectionAlign, 0);
    return start;
  }
  template <class T>
  int64_t add(const std::vector<T>& values) {
    return add(values.data(), values.size() * sizeof(T));
  }
  std::vector<uint8_t>& bytes() { return bytes_; }

 private:
  std::vector<uint8_t> bytes_;
};

PackedOp parse_op(const std::string& op) {
  if (op == "linear") return PackedOp::kLinear;
  if (op == "conv2d") return PackedOp::kConv2d;
  STD_TORCH_CHECK(op == "depthwise_conv2d", kOp,
                  ": expected op linear, conv2d or depthwise_conv2d, got ", op);
  return PackedOp::kDepthwiseConv2d;
}

// No accumulator may leave int32 for any uint8 input.
void check_accumulator(const int8_t* weight, const int32_t* bias, int64_t n, int64_t k) {
  for (int64_t i = 0; i < n; i++) {
    int64_t sum = 0;
    for (int64_t j = 0; j < k; j++) {
      const int w = weight[i * k + j];
      STD_TORCH_CHECK(w != -128, kOp, ": expected weights in -127..127, got -128 in channel ", i);
      sum += std::abs(w);
    }
    const int64_t worst = sum * 255 + std::abs(int64_t{bias[i]});
    STD_TORCH_CHECK(worst < (int64_t{1} << 31), kOp, ": channel ", i, " can reach ", worst,
                    " >= 2^31 in its int32 accumulator; keep this layer float or split it along K");
  }
}

// |accumulator| < 2^31 times a multiplier of at most 0.99, and 255 times this, stay within int32.
constexpr float kBoundedMultiplier = 0.99f, kBoundedResidual = 65536.0f;

// NaN is not bounded.
bool is_bounded(const float* values, int64_t n, float bound) {
  return values == nullptr ||
         std::all_of(values, values + n, [bound](float v) { return std::abs(v) <= bound; });
}

// Where channel c of the tensor stands in the padded per-channel vectors.
using Place = std::vector<int64_t>;

Place gemm_places(const PackedHeader& h) {
  Place place(static_cast<size_t>(h.n));
  const int64_t per_group = h.n / h.groups, width = int64_t{h.panels_per_group} * h.nr;
  for (int64_t c = 0; c < h.n; c++) {
    place[static_cast<size_t>(c)] = c / per_group * width + c % per_group;
  }
  return place;
}

// Pixels to a run of blocks: the least that fills them within 5 % of the best.
int32_t depthwise_pixels(int64_t channels, int64_t block) {
  const auto filled = [&](int64_t pixels) {
    const int64_t lanes = pixels * channels;
    return static_cast<double>(lanes) / static_cast<double>((lanes + block - 1) / block * block);
  };
  double best = 0;
  for (int32_t p = 1; p <= 8; p *= 2) best = std::max(best, filled(p));
  int32_t pixels = 1;
  while (filled(pixels) < 0.95 * best) pixels *= 2;
  return pixels;
}

// Lane order of byte interleaving: see micro/int8_depthwise.h. One place for each channel of each of
// h.pixels pixels.
Place depthwise_places(const PackedHeader& h) {
  Place place(static_cast<size_t>(h.pixels * h.n));
  for (size_t c = 0; c < place.size(); c++) {
    const int64_t at = static_cast<int64_t>(c), in = at % h.nr;
    int64_t lane = in;
    if (h.nr >= 16) {
      const int64_t v = in % 16 / 4, j = in / 16 * 4 + in % 4;
      lane = v * (h.nr / 4) + j;
    }
    place[c] = at / h.nr * h.nr + lane;
  }
  return place;
}

// `n` values, as often as there are places for.
template <class T>
std::vector<T> spread(const T* values, int64_t n, const Place& place, int64_t padded) {
  std::vector<T> out(static_cast<size_t>(padded), T{});
  for (size_t c = 0; c < place.size(); c++) {
    out[static_cast<size_t>(place[c])] = values[c % static_cast<size_t>(n)];
  }
  return out;
}

// weight: [n][k] with k in memory order of the activations. Returns the panel [quad][nr][4].
std::vector<int8_t> gather_panel(const int8_t* weight, const PackedHeader& h, int64_t group,
                                 int64_t panel) {
  const int64_t per_group = h.n / h.groups, run_bytes = int64_t{h.run_quads()} * 4;
  std::vector<int8_t> out(static_cast<size_t>(int64_t{h.quads()} * h.nr * 4), 0);
  for (int64_t j = 0; j < h.nr; j++) {
    const int64_t c = panel * h.nr + j;
    if (c >= per_group) break;
    const int8_t* row = weight + (group * per_group + c) * h.k;
    for (int64_t i = 0; i < h.k; i++) {
      const int64_t at = i / h.run * run_bytes + i % h.run;
      out[static_cast<size_t>((at / 4 * h.nr + j) * 4 + at % 4)] = row[i];
    }
  }
  return out;
}

void set_family(PackedHeader& h, const GemmFamily& family) {
  h.form = static_cast<int32_t>(family.form);
  h.nr = family.nr;
  h.panels_per_group = static_cast<int32_t>((h.n / h.groups + h.nr - 1) / h.nr);
  // A row of the kernel: kernels of this form read it where it lies in the image.
  h.run = reads_runs(family.form) ? h.kw * (h.k / (h.kh * h.kw)) : h.k;
}

// Panels by which the pairs of a whole weight are estimated: finding them takes time.
constexpr int kSampledPanels = 4;

// Estimated cycles of one row of A times one group's weights. `h` has the family set.
float estimate(const GemmFamily& family, int lanes, const int8_t* weight, const PackedHeader& h) {
  const int k4 = h.quads();
  float vector = family.cost.result + static_cast<float>(k4) * family.cost.single;
  if (family.form == GemmForm::kPairs) {
    float sum = 0;
    const int panels = std::min(kSampledPanels, int{h.panels_per_group});
    for (int p = 0; p < panels; p++) {
      const PairedPanel paired = pack_pairs(gather_panel(weight, h, 0, p).data(), k4, h.nr);
      sum += static_cast<float>(paired.pairs) * family.cost.pair +
             static_cast<float>(paired.singles) * family.cost.single;
    }
    vector = family.cost.result + sum / static_cast<float>(panels);
  }
  const auto vectors = static_cast<float>(h.panels_per_group * h.nr / lanes);
  return vectors * vector + static_cast<float>(h.k) * family.cost.widen;
}

// Sets form, nr and panels_per_group to the family with the least estimate.
void choose_family(const KernelTable& table, const int8_t* weight, PackedHeader& h) {
  const GemmFamily* best = &table.gemm[0];
  float least = 0;
  for (int i = 0; i < kMaxFamilies && table.gemm[i].nr != 0; i++) {
    set_family(h, table.gemm[i]);
    const float cost = estimate(table.gemm[i], table.lanes, weight, h);
    if (i == 0 || cost < least) {
      best = &table.gemm[i];
      least = cost;
    }
  }
  set_family(h, *best);
}

// [k4][nr][4] int8 -> [k4][2][nr][2] int16.
std::vector<int16_t> widen_panel(const std::vector<int8_t>& panel, int nr) {
  std::vector<int16_t> out(panel.size());
  const size_t quad = static_cast<size_t>(nr) * 4;
  for (size_t i = 0; i < panel.size(); i++) {
    const size_t k4 = i / quad, j = i % quad / 4, half = i % 4 / 2;
    out[k4 * quad + half * quad / 2 + j * 2 + i % 2] = panel[i];
  }
  return out;
}

void pack_gemm(const KernelTable& table, const int8_t* weight, PackedHeader& h, Buffer& buffer) {
  choose_family(table, weight, h);
  const auto form = static_cast<GemmForm>(h.form);
  std::vector<int8_t> data;
  std::vector<int16_t> words;
  std::vector<int32_t> panels, offsets;
  for (int64_t g = 0; g < h.groups; g++) {
    for (int64_t p = 0; p < h.panels_per_group; p++) {
      const std::vector<int8_t> panel = gather_panel(weight, h, g, p);
      if (form == GemmForm::kWords) {
        const std::vector<int16_t> wide = widen_panel(panel, h.nr);
        words.insert(words.end(), wide.begin(), wide.end());
      } else if (form == GemmForm::kPairs) {
        const PairedPanel paired = pack_pairs(panel.data(), h.quads(), h.nr);
        panels.insert(panels.end(), {static_cast<int32_t>(offsets.size()), paired.pairs,
                                     paired.singles});
        offsets.insert(offsets.end(), paired.offsets.begin(), paired.offsets.end());
        data.insert(data.end(), paired.weight.begin(), paired.weight.end());
      } else {
        data.insert(data.end(), panel.begin(), panel.end());
      }
    }
  }
  h.weight = form == GemmForm::kWords ? buffer.add(words) : buffer.add(data);
  h.weight_bytes = static_cast<int64_t>(data.size() + words.size() * sizeof(int16_t));
  if (form == GemmForm::kPairs) {
    panels.insert(panels.end(), offsets.begin(), offsets.end());
    h.index = buffer.add(panels);
    h.index_bytes = static_cast<int64_t>(panels.size() * sizeof(int32_t));
  }
}

// [block][tap group][lane][taps] of T.
template <class T>
void pack_depthwise(const KernelTable& table, const int8_t* weight, const Place& place,
                    PackedHeader& h, Buffer& buffer) {
  const int64_t taps = table.depthwise_taps, groups = (h.k + taps - 1) / taps;
  std::vector<T> data(static_cast<size_t>(h.panels_per_group * groups * h.nr * taps), 0);
  for (int64_t c = 0; c < h.pixels * h.n; c++) {
    const int64_t lane = place[static_cast<size_t>(c)] % h.nr, block = c / h.nr;
    for (int64_t t = 0; t < h.k; t++) {
      const int64_t at = ((block * groups + t / taps) * h.nr + lane) * taps + t % taps;
      data[static_cast<size_t>(at)] = weight[c % h.n * h.k + t];
    }
  }
  h.weight = buffer.add(data);
  h.weight_bytes = static_cast<int64_t>(data.size() * sizeof(T));
}

// [n][c][kh][kw] -> [n][kh][kw][c]: the order of an NHWC window.
std::vector<int8_t> window_order(const int8_t* weight, const PackedHeader& h) {
  const int64_t taps = int64_t{h.kh} * h.kw, channels = h.c_per_group;
  std::vector<int8_t> out(static_cast<size_t>(int64_t{h.n} * h.k));
  for (int64_t n = 0; n < h.n; n++) {
    for (int64_t c = 0; c < channels; c++) {
      for (int64_t t = 0; t < taps; t++) {
        out[static_cast<size_t>((n * taps + t) * channels + c)] =
            weight[(n * channels + c) * taps + t];
      }
    }
  }
  return out;
}

template <class T>
const T* data_of(const std::optional<Tensor>& t) {
  return t ? static_cast<const T*>(t->const_data_ptr()) : nullptr;
}

}  // namespace

Tensor int8_prepack_cpu(std::string op, Tensor weight, Tensor bias, Tensor multiplier,
                        std::optional<Tensor> residual_multiplier, std::optional<Tensor> table_in,
                        std::optional<Tensor> float_bias, int64_t groups, int64_t x_zero_point,
                        int64_t out_zero_point, int64_t qmin, int64_t qmax, double clamp_min,
                        double clamp_max, bool float_output) {
  const PackedOp kind = parse_op(op);
  check_dtype(kOp, "weight", weight, ScalarType::Char);
  const int64_t dims = kind == PackedOp::kLinear ? 2 : 4;
  STD_TORCH_CHECK(weight.dim() == dims && weight.numel() > 0, kOp, ": expected weight with ", dims,
                  " dimensions and elements for ", op, ", got ", shape_text(weight));
  weight = as_contiguous(weight);
  const int64_t n = weight.sizes()[0];
  STD_TORCH_CHECK(groups >= 1 && n % groups == 0 && (kind != PackedOp::kLinear || groups == 1),
                  kOp, ": groups=", groups, " does not divide ", n, " output channels");
  const bool is_depthwise = kind == PackedOp::kDepthwiseConv2d;
  STD_TORCH_CHECK(!is_depthwise || (groups == n && weight.sizes()[1] == 1), kOp,
                  ": depthwise_conv2d: expected weight [C, 1, kh, kw] and groups=C, got ",
                  shape_text(weight), " and groups=", groups);
  check_vector(kOp, "bias", bias, ScalarType::Int, n);
  check_vector(kOp, "multiplier", multiplier, ScalarType::Float, n);
  bias = as_contiguous(bias);
  multiplier = as_contiguous(multiplier);
  const auto check_optional = [](const char* name, std::optional<Tensor>& t, ScalarType type,
                                 int64_t size) {
    if (!t) return;
    check_vector(kOp, name, *t, type, size);
    t = as_contiguous(*t);
  };
  check_optional("residual_multiplier", residual_multiplier, ScalarType::Float, n);
  check_optional("table", table_in, ScalarType::Byte, 256);
  check_optional("float_bias", float_bias, ScalarType::Float, n);
  const auto is_byte = [](int64_t v) { return v >= 0 && v <= 255; };
  STD_TORCH_CHECK(is_byte(x_zero_point) && is_byte(out_zero_point), kOp,
                  ": expected zero points in 0..255, got x ", x_zero_point, ", out ",
                  out_zero_point);
  STD_TORCH_CHECK(is_byte(qmin) && is_byte(qmax) && qmin <= qmax, kOp,
                  ": expected 0 <= qmin <= qmax <= 255, got ", qmin, ", ", qmax);
  STD_TORCH_CHECK(!(table_in && float_output), kOp,
                  ": a table needs an int8 output, got float_output=True");
  STD_TORCH_CHECK(!float_bias || (float_output && !residual_multiplier), kOp,
                  ": a dynamic weight answers in float and takes no residual");

  const KernelTable& table = current_table();
  PackedHeader h{};
  std::memcpy(h.magic, kPackedMagic, 4);
  h.version = kPackedVersion;
  h.op = static_cast<int32_t>(kind);
  h.layout = static_cast<int32_t>(table.isa);
  h.n = static_cast<int32_t>(n);
  h.k = static_cast<int32_t>(weight.numel() / n);
  h.groups = is_depthwise ? 1 : static_cast<int32_t>(groups);
  h.c_per_group = kind == PackedOp::kLinear ? 1 : static_cast<int32_t>(weight.sizes()[1]);
  h.kh = kind == PackedOp::kLinear ? 1 : static_cast<int32_t>(weight.sizes()[2]);
  h.kw = kind == PackedOp::kLinear ? 1 : static_cast<int32_t>(weight.sizes()[3]);
  h.x_zero_point = static_cast<int32_t>(x_zero_point);
  h.out_zero_point = static_cast<int32_t>(out_zero_point);
  h.qmin = static_cast<int32_t>(qmin);
  h.qmax = static_cast<int32_t>(qmax);
  h.clamp_min = static_cast<float>(clamp_min);
  h.clamp_max = static_cast<float>(clamp_max);
  h.flags = (float_output ? kFlagFloatOutput : 0) | (residual_multiplier ? kFlagResidual : 0) |
            (table_in ? kFlagTable : 0) | (float_bias ? kFlagDynamic : 0);

  if (!is_bounded(static_cast<const float*>(multiplier.const_data_ptr()), n, kBoundedMultiplier) ||
      !is_bounded(data_of<float>(residual_multiplier), n, kBoundedResidual)) {
    h.flags |= kFlagUnbounded;
  }

  const auto* w = static_cast<const int8_t*>(weight.const_data_ptr());
  const auto* b = static_cast<const int32_t*>(bias.const_data_ptr());
  check_accumulator(w, b, n, h.k);

  Buffer buffer;
  if (is_depthwise) {
    h.nr = table.depthwise_block;
    h.run = h.k;
    h.pixels = depthwise_pixels(n, h.nr);
    h.panels_per_group = static_cast<int32_t>((h.pixels * n + h.nr - 1) / h.nr);
  } else if (kind == PackedOp::kConv2d) {
    pack_gemm(table, window_order(w, h).data(), h, buffer);
  } else {
    pack_gemm(table, w, h, buffer);
  }
  const Place place = is_depthwise ? depthwise_places(h) : gemm_places(h);
  if (is_depthwise && table.depthwise_bytes == 2) {
    pack_depthwise<int16_t>(table, w, place, h, buffer);
  } else if (is_depthwise) {
    pack_depthwise<int8_t>(table, w, place, h, buffer);
  }
  const int64_t padded = int64_t{h.groups} * h.panels_per_group * h.nr;
  h.bias = buffer.add(spread(b, n, place, padded));
  h.multiplier = buffer.add(
      spread(static_cast<const float*>(multiplier.const_data_ptr()), n, place, padded));
  if (const auto* p = data_of<float>(residual_multiplier)) {
    h.residual_multiplier = buffer.add(spread(p, n, place, padded));
  }
  if (const auto* p = data_of<uint8_t>(table_in)) h.table = buffer.add(p, 256);
  if (const auto* p = data_of<float>(float_bias)) {
    h.float_bias = buffer.add(spread(p, n, place, padded));
    std::vector<int32_t> sums(static_cast<size_t>(n), 0);
    for (int64_t i = 0; i < n * h.k; i++) sums[static_cast<size_t>(i / h.k)] += w[i];
    h.weight_sum = buffer.add(spread(sums.data(), n, place, padded));
  }
  std::vector<uint8_t>& bytes = buffer.bytes();
  h.total_bytes = static_cast<int64_t>(bytes.size());
  std::memcpy(bytes.data(), &h, sizeof(h));
  Tensor out = empty_contiguous({h.total_bytes}, ScalarType::Byte);
  std::memcpy(out.mutable_data_ptr(), bytes.data(), bytes.size());
  return out;
}

}  // namespace fastinfer
