// A dense convolution by the way that suits it. Torch-free.
#pragma once

#include "dilated_conv.h"
#include "direct_conv.h"
#include "window_rows.h"

namespace fastinfer {

class ConvDriver {
 public:
  // x: NHWC. fill: what padding holds.
  ConvDriver(const PackedView& view, const ConvGeometry& g, const uint8_t* x, uint8_t fill,
             const GemmOutput& output)
      : is_dilated_(DilatedConv::suits(view, g)),
        is_direct_(!is_dilated_ && DirectConv::suits(view, g)),
        dilated_(view, g, x, fill, output),
        direct_(view, g, x, fill, output),
        rows_{x, g, view.header->c_per_group, window_pitch(*view.header), fill},
        windows_(view, rows_, g.out_pixels(), output) {}
  ConvDriver(const ConvDriver&) = delete;  // windows_ refers to rows_
  ConvDriver& operator=(const ConvDriver&) = delete;

  Work work() const {
    return is_dilated_ ? dilated_.work() : is_direct_ ? direct_.work() : windows_.work();
  }
  void run_part(int thread, int threads) const {
    if (is_dilated_) return dilated_.run_part(thread, threads);
    if (is_direct_) return direct_.run_part(thread, threads);
    windows_.run_part(thread, threads);
  }

 private:
  // Runs that kernels read in place fill whole quads; in the other forms rows of the kernel follow one another.
  static int64_t window_pitch(const PackedHeader& h) {
    return reads_runs(static_cast<GemmForm>(h.form)) ? int64_t{h.run_quads()} * 4 : int64_t{h.kw} * h.c_per_group;
  }

  bool is_dilated_, is_direct_;
  DilatedConv dilated_;
  DirectConv direct_;
  WindowRows rows_;
  GemmDriver<WindowRows> windows_;
};

}  // namespace fastinfer
