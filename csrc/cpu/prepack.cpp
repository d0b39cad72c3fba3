// int8_prepack: canonical weights and vectors -> the buffer the kernels of one ISA read.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "../prepack.h"
#include "ops.h"
#include "gemm_choice.h"
#include "kernel_table.h"
#include "pack_pairs.h"
#include "pack_sparse.h"
#include "packed_view.h"

namespace fastinfer {
namespace {

// Where channel c of the tensor stands in the padded per-channel vectors.
using Place = std::vector<int64_t>;

Place gemm_places(const PackedHeader& h) {
  Place place(static_cast<size_t>(h.n));
  const int64_t per_group = h.n / h.panel_groups(), width = int64_t{h.panels_per_group} * h.nr;
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

// The weight in the form of `h`, whose sections it sets.
void pack_panels(const int8_t* weight, PackedHeader& h, PackedBuffer& buffer) {
  const auto form = static_cast<GemmForm>(h.form);
  std::vector<int8_t> data;
  std::vector<int16_t> words;
  std::vector<int32_t> panels, offsets;
  std::vector<uint8_t> picks;
  for (int64_t g = 0; g < h.panel_groups(); g++) {
    for (int64_t p = 0; p < h.panels_per_group; p++) {
      const std::vector<int8_t> panel = gather_panel(weight, h, g, p);
      if (form == GemmForm::kWords) {
        const std::vector<int16_t> wide = widen_panel(panel, h.nr);
        words.insert(words.end(), wide.begin(), wide.end());
      } else if (form == GemmForm::kSparse) {
        const SparsePanel sparse = pack_sparse(panel.data(), h.quads(), h.nr, h.step_quads());
        panels.push_back(static_cast<int32_t>(data.size() / 64));
        data.insert(data.end(), sparse.entries.begin(), sparse.entries.end());
        picks.insert(picks.end(), sparse.picks.begin(), sparse.picks.end());
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
  if (form == GemmForm::kSparse) {
    // Bytes behind the words: where each panel starts, then the quads of each of its steps.
    std::vector<uint8_t> index(panels.size() * sizeof(int32_t));
    std::memcpy(index.data(), panels.data(), index.size());
    index.insert(index.end(), picks.begin(), picks.end());
    h.index = buffer.add(index);
    h.index_bytes = static_cast<int64_t>(index.size());
  } else if (form == GemmForm::kPairs) {
    panels.insert(panels.end(), offsets.begin(), offsets.end());
    h.index = buffer.add(panels);
    h.index_bytes = static_cast<int64_t>(panels.size() * sizeof(int32_t));
  }
}

// (kh, kw, c) -> (kw, kh, c).
std::vector<int8_t> by_columns(const int8_t* weight, const PackedHeader& h) {
  const int64_t channels = h.c_per_group, rows = h.kh, columns = h.kw;
  std::vector<int8_t> out(static_cast<size_t>(int64_t{h.n} * h.k));
  int8_t* to = out.data();
  for (int64_t n = 0; n < h.n; n++, weight += h.k) {
    for (int64_t x = 0; x < columns; x++) {
      for (int64_t y = 0; y < rows; y++, to += channels) {
        std::memcpy(to, weight + (y * columns + x) * channels, static_cast<size_t>(channels));
      }
    }
  }
  return out;
}

// Returns the header of a second image for calls of few rows, where there is one: it has those
// sections that are not the first one's.
std::optional<PackedHeader> pack_gemm(const KernelTable& table, const int8_t* weight,
                                      PackedHeader& h, PackedBuffer& buffer) {
  std::optional<PackedHeader> few_rows = choose_family(table, weight, h);
  pack_panels(h.has(kFlagColumns) ? by_columns(weight, h).data() : weight, h, buffer);
  if (few_rows) pack_panels(weight, *few_rows, buffer);
  return few_rows;
}

// `h` has all its sections.
void add_few_rows(const PackedHeader& image, PackedHeader& h, PackedBuffer& buffer) {
  PackedHeader second = h;
  second.form = image.form;
  second.nr = image.nr;
  second.panels_per_group = image.panels_per_group;
  second.run = image.run;
  second.weight = image.weight;
  second.weight_bytes = image.weight_bytes;
  second.index = image.index;
  second.index_bytes = image.index_bytes;
  second.pixels = 0;
  h.index = buffer.add(&second, sizeof(second));
  h.index_bytes = static_cast<int64_t>(sizeof(second));
}

int64_t padded_channels(const PackedHeader& h) {
  return int64_t{h.panel_groups()} * h.panels_per_group * h.nr;
}

// [block][tap group][lane][taps] of T.
template <class T>
void pack_depthwise(const KernelTable& table, const int8_t* weight, const Place& place,
                    PackedHeader& h, PackedBuffer& buffer) {
  const int64_t taps = table.depthwise_taps, groups = (h.k + taps - 1) / taps;
  const bool by_columns = lies_by_columns(table.depthwise_taps, h.kh, h.kw);
  std::vector<T> data(static_cast<size_t>(h.panels_per_group * groups * h.nr * taps), 0);
  for (int64_t c = 0; c < h.pixels * h.n; c++) {
    const int64_t lane = place[static_cast<size_t>(c)] % h.nr, block = c / h.nr;
    for (int64_t t = 0; t < h.k; t++) {
      const int64_t slot = by_columns ? t % h.kw * taps + t / h.kw : t;
      const int64_t at = ((block * groups + slot / taps) * h.nr + lane) * taps + slot % taps;
      data[static_cast<size_t>(at)] = weight[c % h.n * h.k + t];
    }
  }
  h.weight = buffer.add(data);
  h.weight_bytes = static_cast<int64_t>(data.size() * sizeof(T));
}

// Whether Winograd's convolution finds every sum of these weights whole, whatever is multiplied by them.
bool has_winograd_sums(const int8_t* weight, const PackedHeader& h) {
  if (h.op != static_cast<int32_t>(PackedOp::kConv2d) || h.kh != 3 || h.kw != 3) return false;
  for (const int8_t* const end = weight + int64_t{h.n} * h.k; weight != end; weight += h.k) {
    int64_t above = 0, below = 0;
    for (int32_t i = 0; i < h.k; i++) (weight[i] > 0 ? above : below) += weight[i];
    if (255 * above >= kWinogradSum || 255 * below < -kWinogradSum) return false;
  }
  return true;
}

}  // namespace

Tensor int8_prepack_cpu(std::string op, Tensor weight, Tensor bias, Tensor multiplier,
                        std::optional<Tensor> residual_multiplier, std::optional<Tensor> table_in,
                        std::optional<Tensor> float_bias, int64_t groups, int64_t x_zero_point,
                        int64_t out_zero_point, int64_t qmin, int64_t qmax, double clamp_min,
                        double clamp_max, bool float_output, bool strided) {
  PrepackInputs in{weight, bias, multiplier, residual_multiplier, table_in, float_bias};
  const KernelTable& table = current_table();
  PackedHeader h = begin_prepack(in, op, groups, x_zero_point, out_zero_point, qmin, qmax,
                                 clamp_min, clamp_max, float_output, strided);
  h.layout = static_cast<int32_t>(table.isa);
  const auto kind = static_cast<PackedOp>(h.op);
  const bool is_depthwise = kind == PackedOp::kDepthwiseConv2d;
  const int64_t n = h.n;
  const auto* w = static_cast<const int8_t*>(in.weight.const_data_ptr());
  const auto* b = static_cast<const int32_t*>(in.bias.const_data_ptr());

  PackedBuffer buffer;
  std::optional<PackedHeader> few_rows;
  if (is_depthwise) {
    h.nr = table.depthwise_block;
    h.run = h.k;
    h.pixels = depthwise_pixels(n, h.nr);
    h.panels_per_group = static_cast<int32_t>((h.pixels * n + h.nr - 1) / h.nr);
  } else if (kind == PackedOp::kConv2d) {
    if (has_winograd_sums(w, h)) h.flags |= kFlagWinogradSums;
    few_rows = pack_gemm(table, window_order(w, h).data(), h, buffer);
  } else {
    few_rows = pack_gemm(table, w, h, buffer);
  }
  const Place place = is_depthwise ? depthwise_places(h) : gemm_places(h);
  if (is_depthwise && table.depthwise_bytes == 2) {
    pack_depthwise<int16_t>(table, w, place, h, buffer);
  } else if (is_depthwise) {
    pack_depthwise<int8_t>(table, w, place, h, buffer);
  }
  const int64_t padded =
      std::max(padded_channels(h), few_rows ? padded_channels(*few_rows) : 0);
  h.bias = buffer.add(spread(b, n, place, padded));
  h.multiplier = buffer.add(
      spread(static_cast<const float*>(in.multiplier.const_data_ptr()), n, place, padded));
  if (const auto* p = data_of<float>(in.residual_multiplier)) {
    h.residual_multiplier = buffer.add(spread(p, n, place, padded));
  }
  if (const auto* p = data_of<uint8_t>(in.table)) h.table = buffer.add(p, 256);
  if (const auto* p = data_of<float>(in.float_bias)) {
    h.float_bias = buffer.add(spread(p, n, place, padded));
    std::vector<int32_t> sums(static_cast<size_t>(n), 0);
    for (int64_t i = 0; i < n * h.k; i++) sums[static_cast<size_t>(i / h.k)] += w[i];
    h.weight_sum = buffer.add(spread(sums.data(), n, place, padded));
  }
  if (few_rows) add_few_rows(*few_rows, h, buffer);
  return buffer.finish(h);
}

}  // namespace fastinfer
