// A dense convolution by the way that suits it. Torch-free.
#pragma once

#include "dilated_conv.h"
#include "direct_conv.h"
#include "window_rows.h"
#include "winograd_conv.h"

namespace fastinfer {

class ConvDriver {
  // Here, since its type is that of what it returns.
  template <class Call>
  auto by_way(const Call& call) const {
    switch (way_) {
      case Way::kWinograd: return call(winograd_);
      case Way::kDilated: return call(dilated_);
      case Way::kDirect: return call(direct_);
      default: return call(windows_);
    }
  }

 public:
  // x: NHWC. fill: what padding holds.
  ConvDriver(const PackedView& view, const ConvGeometry& g, const uint8_t* x, uint8_t fill,
             const GemmOutput& output)
      : way_(way_of(view, g)),
        winograd_(view, g, x, fill, output),
        dilated_(view, g, x, fill, output),
        direct_(view, g, x, fill, output),
        rows_{x, g, view.header->c_per_group, window_pitch(*view.header), fill},
        windows_(view, rows_, g.out_pixels(), output) {}
  ConvDriver(const ConvDriver&) = delete;  // windows_ refers to rows_
  ConvDriver& operator=(const ConvDriver&) = delete;

  // "winograd", "dilated", "direct" or "windows".
  static const char* way_name(const PackedView& view, const ConvGeometry& g) {
    constexpr const char* kNames[] = {"winograd", "dilated", "direct", "windows"};
    return kNames[static_cast<int>(way_of(view, g))];
  }

  Work work() const {
    return by_way([](const auto& conv) { return conv.work(); });
  }
  void run_part(int thread, int threads) const {
    by_way([&](const auto& conv) { conv.run_part(thread, threads); });
  }

 private:
  enum class Way { kWinograd, kDilated, kDirect, kWindows };

  static Way way_of(const PackedView& view, const ConvGeometry& g) {
    if (WinogradConv::suits(view, g)) return Way::kWinograd;
    if (DilatedConv::suits(view, g)) return Way::kDilated;
    return DirectConv::suits(view, g) ? Way::kDirect : Way::kWindows;
  }
  // Runs that kernels read in place fill whole quads; in the other forms rows of the kernel follow one another.
  static int64_t window_pitch(const PackedHeader& h) {
    return reads_runs(static_cast<GemmForm>(h.form)) ? int64_t{h.run_quads()} * 4 : int64_t{h.kw} * h.c_per_group;
  }

  Way way_;
  WinogradConv winograd_;
  DilatedConv dilated_;
  DirectConv direct_;
  WindowRows rows_;
  GemmDriver<WindowRows> windows_;
};

}  // namespace fastinfer
