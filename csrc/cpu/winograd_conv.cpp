#include "winograd_conv.h"

#include <algorithm>
#include <cstring>

#include "isa.h"
#include "scratch.h"

namespace fastinfer {
namespace {

struct DomainScratch;

// What a block's inputs and sums take of L2. But a block has many tiles, by which weights are brought into the
// domain once: then its inputs come from L3 for every panel, in time, as each value is read for 16 products
// or more (Zen 5, 64 tiles instead of 22 of 256 channels 0.9, of 512 0.84 of a layer's time); within what
// threads may take of L3.
constexpr int64_t kNearBlockBytes = 512 * 1024, kManyTiles = 64;
constexpr int64_t kBlockBytes = 4 << 20, kLeastTiles = 16;
// Matrices begin a line of cache apart from multiples of 4 KiB, which share few sets.
constexpr int64_t kApart = 32;

// With so few tiles columns of weights are made while they are multiplied, once for every kWinogradLateRows rows:
// where additions take no time from products (Zen 4: 16 tiles of 256 channels 0.925 of a layer's time, 49 of 128 as
// long as before).
constexpr int64_t kLateTiles = 48;

constexpr double kMargin = 0.97;
// Cycles of a line of cache that another thread has made, where they share an L3 (Zen 4: two that shared panels of
// 128 x 28 x 28 took 1.09 times as long as two that shared tiles, and the next layer waited for their results).
constexpr double kExchange = 30;

const WinogradKernels* kernels_of(const PackedView& view) {
  return view.table->winograd_of(static_cast<GemmForm>(view.header->form), view.header->nr);
}

// Whether weights are brought into the domain while they are multiplied by a block's tiles.
bool takes_late(const PackedView& view, int64_t tiles) {
  const int64_t most = adds_beside_products() ? kLateTiles : kWinogradLateRows;
  return kernels_of(view)->late.weights != nullptr && tiles <= most;
}

int64_t padded(int64_t channels) {
  return divide_up(channels, kWinogradBlock) * kWinogradBlock;
}

int64_t most_tiles(const PackedHeader& h, int64_t channels) {
  const int64_t values = padded(channels) * int64_t{sizeof(int16_t)} + h.nr * int64_t{sizeof(int32_t)};
  const int64_t of_tile = kWinogradPositions * values;
  const int64_t tiles = std::max(kManyTiles, kNearBlockBytes / of_tile);
  return std::max(kLeastTiles, std::min(tiles, kBlockBytes / of_tile));
}

int64_t tiles_of(const ConvGeometry& g) {
  return g.batch * WinogradAxis{g.out_height, g.dilation_h}.tiles() *
         WinogradAxis{g.out_width, g.dilation_w}.tiles();
}

// Of a tile on average.
double positions_of(const ConvGeometry& g) {
  const int64_t all = g.batch * WinogradAxis{g.out_height, g.dilation_h}.positions() *
                      WinogradAxis{g.out_width, g.dilation_w}.positions();
  return static_cast<double>(all) / static_cast<double>(tiles_of(g));
}

// Of all taps of all results of one dimension, the part that finds a pixel.
double inside(int64_t size, int64_t out, int64_t dilation, int64_t padding) {
  int64_t found = 0;
  for (int64_t tap = 0; tap < 3; tap++) {
    const int64_t at = tap * dilation - padding;
    found += std::max<int64_t>(0, std::min(out, size - at) - std::max<int64_t>(0, -at));
  }
  return static_cast<double>(found) / static_cast<double>(3 * out);
}

// What windows take where each tap is multiplied; DilatedConv leaves out those that see padding.
double direct_estimate(const PackedView& view, const ConvGeometry& g) {
  double taps = 9;
  if (g.dilation_h > 1 && g.dilation_w > 1 && view.header->x_zero_point == 0) {
    taps *= inside(g.height, g.out_height, g.dilation_h, g.pad_h) *
            inside(g.width, g.out_width, g.dilation_w, g.pad_w);
  }
  const double vectors = static_cast<double>(view.panels() * view.header->nr / view.table->lanes);
  const double quads = static_cast<double>(divide_up(g.channels, 4));
  const WinogradCost& cost = kernels_of(view)->cost;
  return static_cast<double>(g.out_pixels()) * vectors *
         (taps * quads * cost.direct + cost.direct_result);
}

}  // namespace

int64_t WinogradAxis::tiles() const {
  const int64_t each = size / dilation, longer = size % dilation;
  return longer * divide_up(each + 1, kWinogradOut) +
         (dilation - longer) * divide_up(each, kWinogradOut);
}

// The first `longer` of the rows that lie `dilation` apart have one result more than the others.
WinogradAxis::Tile WinogradAxis::tile(int64_t index) const {
  const int64_t each = size / dilation, longer = size % dilation;
  const int64_t in_longer = divide_up(each + 1, kWinogradOut);
  const bool is_longer = index < longer * in_longer;
  const int64_t begin = is_longer ? 0 : longer, results = each + is_longer;
  const int64_t tiles = is_longer ? in_longer : divide_up(each, kWinogradOut);
  if (!is_longer) index -= longer * in_longer;
  const int64_t first = index % tiles * kWinogradOut;
  return {begin + index / tiles + first * dilation,
          static_cast<int>(std::min<int64_t>(kWinogradOut, results - first))};
}

int64_t WinogradAxis::positions() const {
  const auto of_results = [](int64_t results) {
    const int rest = static_cast<int>(results % kWinogradOut);
    return results / kWinogradOut * kWinogradSide + (rest > 0 ? winograd_side(rest) : 0);
  };
  const int64_t each = size / dilation, longer = size % dilation;
  return longer * of_results(each + 1) + (dilation - longer) * of_results(each);
}

WinogradPlace WinogradRows::next(int lines, int columns) {
  const WinogradPlace place = next_;
  for (int i = 0; i + 4 <= winograd_side(lines); i++) {
    for (int j = 0; j + 4 <= winograd_side(columns); j++) next_.at[i][j] += row_values_;
  }
  return place;
}

bool WinogradConv::suits(const PackedView& view, const ConvGeometry& g) {
  const PackedHeader& h = *view.header;
  const bool can = h.has(kFlagWinogradSums) && h.groups == 1 && g.kh == 3 && g.kw == 3 &&
                   g.stride_h == 1 && g.stride_w == 1 && g.channels % 4 == 0 &&
                   kernels_of(view) != nullptr && g.out_pixels() > 0;
  return can && estimate(view, g, tiles_of(g), view.panels()) < kMargin * direct_estimate(view, g);
}

double WinogradConv::estimate(const PackedView& view, const ConvGeometry& g, int64_t tiles,
                              int64_t panels) {
  const int64_t passes = divide_up(tiles, most_tiles(*view.header, g.channels));
  const auto vectors = static_cast<double>(panels * view.header->nr / view.table->lanes);
  const auto channels = static_cast<double>(g.channels), all = static_cast<double>(tiles);
  const double blocks = static_cast<double>(padded(g.channels) / kWinogradBlock);
  const WinogradCost& cost = kernels_of(view)->cost;
  return all * blocks * cost.input +
         vectors * (static_cast<double>(passes) * channels * cost.weight +
                    all * (channels * positions_of(g) * cost.product + cost.output));
}

Work WinogradConv::work() const {
  return work_of(tiles_of(g_));
}

// Threads that share tiles bring all weights into the domain, ones that share panels all tiles.
GemmShare WinogradConv::share(int thread, int threads) const {
  const int64_t tiles = tiles_of(g_), panels = view_.panels();
  const auto most = [&](int64_t count) { return divide_up(count, threads); };
  const double others = static_cast<double>(g_.in_bytes() / kLineBytes * (threads - 1) / threads);
  if (estimate(view_, g_, most(tiles), panels) <=
      estimate(view_, g_, tiles, most(panels)) + kExchange * others) {
    return {share_of(tiles, thread, threads), {0, panels}};
  }
  return {{0, tiles}, share_of(panels, thread, threads)};
}

WinogradConv::Domain WinogradConv::domain(int64_t tiles) const {
  Domain d{};
  d.row_values = padded(g_.channels);
  d.rows_step = tiles * d.row_values + kApart;
  d.weights_step = g_.channels * h_.nr + kApart;
  const int64_t rows = kWinogradPositions * d.rows_step;
  const int64_t weights = 2 * kWinogradSide * d.weights_step;
  d.sums_step = apart(tiles * h_.nr * int64_t{sizeof(int32_t)}) / int64_t{sizeof(int32_t)};
  const int64_t sums = kWinogradPositions * d.sums_step;
  const int64_t bytes = (rows + weights) * int64_t{sizeof(int16_t)} + sums * int64_t{sizeof(int32_t)};
  uint8_t* const memory =
      scratch<DomainScratch>(bytes + tiles * int64_t{sizeof(Tile)} + d.row_values);
  d.rows = reinterpret_cast<int16_t*>(memory);
  d.weights = d.rows + rows;
  d.sums = reinterpret_cast<int32_t*>(d.weights + weights);
  d.at = reinterpret_cast<Tile*>(memory + bytes);
  d.fill = reinterpret_cast<uint8_t*>(d.at + tiles);
  std::memset(d.fill, fill_, static_cast<size_t>(d.row_values));
  return d;
}

void WinogradConv::run_part(int thread, int threads) const {
  const auto [tiles, panels] = share(thread, threads);
  if (tiles.begin == tiles.end || panels.begin == panels.end) return;
  const int64_t count = tiles.end - tiles.begin, blocks = divide_up(count, most_tiles(h_, g_.channels));
  const Domain d = domain(divide_up(count, blocks));
  for (int64_t b = 0; b < blocks; b++) {
    const Range block = {tiles.begin + count * b / blocks, tiles.begin + count * (b + 1) / blocks};
    const WinogradRows rows = transform_inputs(d, block);
    const bool is_late = takes_late(view_, block.end - block.begin);
    for (int64_t p = panels.begin; p < panels.end; p++) {
      const bool is_last = p + 1 == panels.end;
      is_late ? multiply_late(d, rows, p, is_last) : multiply(d, rows, p, is_last);
      transform_results(d, block.end - block.begin, p);
    }
    if (h_.table) look_up(d, block.end - block.begin, panels);
  }
}

WinogradConv::Tile WinogradConv::tile(int64_t index) const {
  const WinogradAxis lines{g_.out_height, g_.dilation_h}, columns{g_.out_width, g_.dilation_w};
  const int64_t wide = columns.tiles(), all = wide * lines.tiles();
  Tile t{0, index / all, lines.tile(index % all / wide), columns.tile(index % wide)};
  t.pixel = (t.image * g_.out_height + t.lines.first) * g_.out_width + t.columns.first;
  return t;
}

WinogradRows WinogradConv::transform_inputs(const Domain& d, const Range& tiles) const {
  const WinogradKernels& kernels = *kernels_of(view_);
  WinogradRows rows(d.row_values);
  WinogradInput input{};
  input.channels = g_.channels;
  input.position_step = d.rows_step;
  input.to = d.rows;
  for (int64_t t = tiles.begin; t < tiles.end; t++) {
    const Tile& at = d.at[t - tiles.begin] = tile(t);
    input.lines = at.lines.count;
    input.columns = at.columns.count;
    input.place = rows.next(input.lines, input.columns);
    const uint8_t* const image = x_ + at.image * g_.height * g_.width * g_.pixel_step;
    for (int64_t i = 0; i < kWinogradSide; i++) {
      const int64_t y = at.lines.first - g_.pad_h + i * g_.dilation_h;
      const bool is_line = y >= 0 && y < g_.height;
      for (int64_t j = 0; j < kWinogradSide; j++) {
        const int64_t x = at.columns.first - g_.pad_w + j * g_.dilation_w;
        const bool is_pixel = is_line && x >= 0 && x < g_.width;
        input.pixels[i * kWinogradSide + j] =
            is_pixel ? image + (y * g_.width + x) * g_.pixel_step : d.fill;
      }
    }
    kernels.input(input);
  }
  return rows;
}

// All rows of a block times a panel.
void WinogradConv::multiply(const Domain& d, const WinogradRows& rows, int64_t panel,
                            bool is_last) const {
  const WinogradKernels& kernels = *kernels_of(view_);
  const GemmTiles packed = panel_tiles(view_, panel);
  WinogradWeights weights{packed.weight, g_.channels / 4, 0, d.weights, d.weights_step};
  WinogradProducts products{};
  products.row_bytes = d.row_values * int64_t{sizeof(int16_t)};
  products.quads = weights.quads;
  // The next panel's weights come to L2 meanwhile.
  const int64_t ahead = divide_up(packed.panel_bytes, kWinogradPositions);
  const auto* next = static_cast<const uint8_t*>(packed.weight) + packed.panel_bytes;
  for (; weights.pair < 3; weights.pair++) {
    kernels.weights(weights);
    products.weight = d.weights;
    for (const int line : kWinogradPairs[weights.pair]) {
      for (int column = 0; column < kWinogradSide; column++) {
        if (!is_last) prefetch_weight(next, ahead, view_.is_read_once);
        next += ahead;
        const int64_t position = line * kWinogradSide + column, all = rows.count(line, column);
        const int64_t parts = divide_up(all, kernels.most_rows);
        for (int64_t part = 0; part < parts; part++) {
          const int64_t first = all * part / parts, count = all * (part + 1) / parts - first;
          products.rows = d.rows + position * d.rows_step + first * d.row_values;
          products.sums = d.sums + position * d.sums_step + first * h_.nr;
          kernels.products[count - 1](products);
        }
        products.weight += d.weights_step;
      }
    }
  }
}

void WinogradConv::multiply_late(const Domain& d, const WinogradRows& rows, int64_t panel,
                                 bool is_last) const {
  const WinogradLate& late = kernels_of(view_)->late;
  const GemmTiles packed = panel_tiles(view_, panel);
  WinogradWeights weights{packed.weight, g_.channels / 4, 0, d.weights,
                          3 * g_.channels * h_.nr + kApart};
  WinogradLateProducts products{};
  products.row_bytes = d.row_values * int64_t{sizeof(int16_t)};
  products.quads = weights.quads;
  const auto multiply = [&](const auto& kernels, int line, const int (&columns)[2], Range range) {
    const int64_t all = range.end - range.begin, parts = divide_up(all, kWinogradLateRows);
    for (int64_t part = 0; part < parts; part++) {
      const int64_t first = all * part / parts, count = all * (part + 1) / parts - first;
      for (int i = 0; i < 2; i++) {
        const int64_t position = line * kWinogradSide + columns[i], row = range.begin + first;
        products.rows[i] = d.rows + position * d.rows_step + row * d.row_values;
        products.sums[i] = d.sums + position * d.sums_step + row * h_.nr;
      }
      kernels[count - 1](products);
    }
  };
  // The next panel's weights come to L2 meanwhile.
  const int64_t ahead = divide_up(packed.panel_bytes, kWinogradPositions / 2);
  const auto* next = static_cast<const uint8_t*>(packed.weight) + packed.panel_bytes;
  for (; weights.pair < 3; weights.pair++) {
    late.weights(weights);
    products.weight = d.weights;
    for (const int line : kWinogradPairs[weights.pair]) {
      for (int pair = 0; pair < 3; pair++) {
        if (!is_last) prefetch_weight(next, ahead, view_.is_read_once);
        next += ahead;
        const int(&columns)[2] = kWinogradPairs[pair];
        const int64_t both = rows.count(line, columns[1]);
        multiply(late.products[pair], line, columns, {0, both});
        multiply(late.products[3], line, columns, {both, rows.count(line, columns[0])});
      }
      products.weight += weights.position_step;
    }
  }
}

void WinogradConv::transform_results(const Domain& d, int64_t tiles, int64_t panel) const {
  const WinogradKernels& kernels = *kernels_of(view_);
  const Epilogue whole = panel_epilogue(view_, output_, panel, 0);
  WinogradRows rows(h_.nr);
  WinogradOutput output{};
  output.sums = d.sums;
  output.position_step = d.sums_step;
  output.line_step = g_.dilation_h * g_.out_width * output_.ldc;
  for (const Tile* at = d.at; at < d.at + tiles; at++) {
    output.lines = at->lines.count;
    output.columns = at->columns.count;
    output.place = rows.next(output.lines, output.columns);
    Epilogue e = whole;
    e.shift(at->pixel * output_.ldc);
    e.ldc *= g_.dilation_w;
    kernels.output(output, e);
  }
}

void WinogradConv::look_up(const Domain& d, int64_t tiles, const Range& panels) const {
  for (const Tile* at = d.at; at < d.at + tiles; at++) {
    for (int y = 0; y < at->lines.count; y++) {
      const int64_t first = at->pixel + y * g_.dilation_h * g_.out_width;
      for (int x = 0; x < at->columns.count; x++) {
        const int64_t m = first + x * g_.dilation_w;
        look_up_panels(view_, output_, panels.begin, panels.end, m, m + 1);
      }
    }
  }
}

}  // namespace fastinfer
