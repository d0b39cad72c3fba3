// A dense convolution by the way that suits it. Torch-free.
#pragma once

#include "dilated_conv.h"
#include "direct_conv.h"
#include "window_rows.h"
#include "winograd_conv.h"

namespace fastinfer {

enum class ConvWay { kWinograd, kDilated, kDirect, kWindows };

// What a step of the engine asks once.
inline ConvWay conv_way(const PackedView& view, const ConvGeometry& g) {
  if (WinogradConv::suits(view, g)) return ConvWay::kWinograd;
  if (DilatedConv::suits(view, g)) return ConvWay::kDilated;
  return DirectConv::suits(view, g) ? ConvWay::kDirect : ConvWay::kWindows;
}

class ConvDriver {
  // Before its uses: what it returns is known from its body.
  template <class Call>
  auto by_way(const Call& call) const {
    switch (way_) {
      case ConvWay::kWinograd: return call(winograd_);
      case ConvWay::kDilated: return call(dilated_);
      case ConvWay::kDirect: return call(direct_);
      default: return call(windows_);
    }
  }

 public:
  // x: NHWC. fill: what padding holds.
  ConvDriver(ConvWay way, const PackedView& view, const ConvGeometry& g, const uint8_t* x,
             uint8_t fill, const GemmOutput& output)
      : way_(way),
        winograd_(view, g, x, fill, output),
        dilated_(view, g, x, fill, output),
        direct_(view, g, x, fill, output),
        rows_{x, g, view.header->c_per_group, window_pitch(*view.header), fill,
              view.header->has(kFlagColumns)},
        windows_(view, rows_, g.out_pixels(), output) {}
  ConvDriver(const ConvDriver&) = delete;  // windows_ refers to rows_
  ConvDriver& operator=(const ConvDriver&) = delete;

  Work work() const {
    return by_way([](const auto& conv) { return conv.work(); });
  }
  void run_part(int thread, int threads) const {
    by_way([&](const auto& conv) { conv.run_part(thread, threads); });
  }

 private:
  // Runs that kernels read in place fill whole quads; in the other forms rows of the kernel follow one another.
  static int64_t window_pitch(const PackedHeader& h) {
    return reads_runs(static_cast<GemmForm>(h.form)) ? int64_t{h.run_quads()} * 4 : int64_t{h.kw} * h.c_per_group;
  }

  ConvWay way_;
  WinogradConv winograd_;
  DilatedConv dilated_;
  DirectConv direct_;
  WindowRows rows_;
  GemmDriver<WindowRows> windows_;
};

}  // namespace fastinfer
