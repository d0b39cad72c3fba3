// int8_depthwise_conv2d.
#include "depthwise_driver.h"
#include "ops.h"

namespace fastinfer {
namespace {

// One thread's share of a depthwise convolution: whole output rows.
class RowRunner {
 public:
  RowRunner(const PackedView& view, const ConvGeometry& g, const uint8_t* x, int32_t fill,
            const GemmOutput& output)
      : view_(view), h_(*view.header), g_(g), x_(x), output_(output) {
    const KernelTable& table = *view.table;
    end_ = x + g.batch * g.height * g.width * g.channels;
    groups_ = (h_.k + table.depthwise_taps - 1) / table.depthwise_taps;
    const int64_t taps = int64_t{groups_} * table.depthwise_taps;
    // A padded row is a run of `fill` as long as any run of pixels reads.
    fill_bytes_ = g.out_width * g.stride_w * g.channels + h_.nr * 2;
    struct Fill;
    uint8_t* memory = scratch<Fill>(fill_bytes_ + taps * h_.nr);
    std::memset(memory, fill, static_cast<size_t>(fill_bytes_));
    fill_ = memory;
    copies_ = memory + fill_bytes_;
    taps_.resize(static_cast<size_t>(taps), fill_);
    block_taps_ = taps_;
  }

  void row(int64_t image, int64_t oy) {
    const int64_t span = g_.dilation_w * (g_.kw - 1);
    // Output pixels whose window lies inside the image's width.
    const int64_t first =
        std::min(g_.out_width, (g_.pad_w + g_.stride_w - 1) / g_.stride_w);
    const int64_t room = g_.width + g_.pad_w - span - 1;
    const int64_t inside = room < 0 ? 0 : room / g_.stride_w + 1;
    const int64_t last = std::clamp(inside, first, g_.out_width);
    for (int64_t ox = 0; ox < first; ox++) run(image, oy, ox, 1);
    if (last > first) run(image, oy, first, last - first);
    for (int64_t ox = last; ox < g_.out_width; ox++) run(image, oy, ox, 1);
  }

 private:
  // Pixels [ox, ox + count) of one output row; more than one only where no tap leaves the width.
  void run(int64_t image, int64_t oy, int64_t ox, int64_t count) {
    const uint8_t* plane = x_ + image * g_.height * g_.width * g_.channels;
    size_t t = 0;
    for (int64_t i = 0; i < g_.kh; i++) {
      const int64_t y = oy * g_.stride_h - g_.pad_h + i * g_.dilation_h;
      for (int64_t j = 0; j < g_.kw; j++, t++) {
        const int64_t at = ox * g_.stride_w - g_.pad_w + j * g_.dilation_w;
        const bool inside = y >= 0 && y < g_.height && at >= 0 && at < g_.width;
        taps_[t] = inside ? plane + (y * g_.width + at) * g_.channels : fill_;
      }
    }
    const int64_t pixel = (image * g_.out_height + oy) * g_.out_width + ox;
    for (int64_t block = 0; block < h_.panels_per_group; block++) {
      run_block(block, pixel, count);
    }
    if (h_.table) {
      uint8_t* out = output_.out_u8 + pixel * output_.ldc;
      view_.table->lookup(out, out, count * output_.ldc, view_.lookup_table());
    }
  }

  void run_block(int64_t block, int64_t pixel, int64_t count) {
    const int64_t c0 = block * h_.nr;
    const int64_t step = g_.stride_w * g_.channels;
    for (size_t t = 0; t < taps_.size(); t++) {
      block_taps_[t] = is_fill(taps_[t]) ? fill_ : taps_[t] + c0;
    }
    // Kernels load whole blocks, which may pass the end of the tensor in its last pixels; those
    // are computed from copies.
    int64_t safe = count;
    while (safe > 0 && passes_end((safe - 1) * step)) safe--;
    if (safe > 0) call(block, pixel, safe, step);
    for (int64_t i = safe; i < count; i++) {
      const std::vector<const uint8_t*> taps = block_taps_;
      for (size_t t = 0; t < taps.size(); t++) {
        if (is_fill(taps[t])) continue;
        uint8_t* copy = copies_ + static_cast<int64_t>(t) * h_.nr;
        std::memcpy(copy, taps[t] + i * step, static_cast<size_t>(valid_channels(c0)));
        block_taps_[t] = copy;
      }
      call(block, pixel + i, 1, step);
      block_taps_ = taps;
    }
  }

  void call(int64_t block, int64_t pixel, int64_t count, int64_t step) {
    const int64_t c0 = block * h_.nr;
    DepthwiseRun run{};
    run.taps = block_taps_.data();
    run.tap_step = step;
    run.pixels = static_cast<int>(count);
    run.tap_groups = static_cast<int>(groups_);
    run.weight = view_.section<uint8_t>(h_.weight) +
                 block * groups_ * view_.table->depthwise_taps * h_.nr *
                     view_.table->depthwise_bytes;
    Epilogue e = view_.epilogue(c0);
    e.n_valid = static_cast<int>(valid_channels(c0));
    e.ldc = output_.ldc;
    const int64_t at = pixel * output_.ldc + c0;
    if (output_.out_u8) e.out_u8 = output_.out_u8 + at;
    if (output_.out_f32) e.out_f32 = output_.out_f32 + at;
    if (output_.residual_u8) e.residual_u8 = output_.residual_u8 + at;
    if (output_.residual_f32) e.residual_f32 = output_.residual_f32 + at;
    e.row_scale = output_.row_scale;
    e.row_zero_point = output_.row_zero_point;
    view_.table->depthwise(run, e);
  }

  int64_t valid_channels(int64_t c0) const { return std::min<int64_t>(h_.nr, h_.n - c0); }
  bool is_fill(const uint8_t* tap) const { return tap >= fill_ && tap < fill_ + fill_bytes_; }
  bool passes_end(int64_t offset) const {
    for (const uint8_t* tap : block_taps_) {
      if (!is_fill(tap) && tap + offset + h_.nr > end_) return true;
    }
    return false;
  }

  const PackedView& view_;
  const PackedHeader& h_;
  const ConvGeometry& g_;
  const uint8_t* x_;
  const uint8_t* end_;
  const GemmOutput& output_;
  const uint8_t* fill_;
  int64_t fill_bytes_;
  uint8_t* copies_;
  int64_t groups_;
  std::vector<const uint8_t*> taps_, block_taps_;
};

}  // namespace

void run_depthwise(const PackedView& view, const ConvGeometry& g, const uint8_t* x, int32_t fill,
                   const GemmOutput& output) {
  const int64_t rows = g.batch * g.out_height;
  // A depthwise product costs about four times a GEMM's.
  const int64_t work = g.out_pixels() * g.channels * view.header->k * 4;
  split_range(rows, threads_for(work, rows), [&](int64_t r0, int64_t r1) {
    RowRunner runner(view, g, x, fill, output);
    for (int64_t r = r0; r < r1; r++) runner.row(r / g.out_height, r % g.out_height);
  });
}

Tensor int8_depthwise_conv2d_cpu(Tensor x, Tensor packed, std::optional<Tensor> residual,
                                 std::vector<int64_t> kernel_size, std::vector<int64_t> stride,
                                 std::vector<int64_t> padding, std::vector<int64_t> dilation,
                                 bool float_output) {
  constexpr const char* kOp = "int8_depthwise_conv2d";
  check_dtype(kOp, "x", x, ScalarType::Byte);
  const PackedView view =
      view_packed(kOp, packed, PackedOp::kDepthwiseConv2d, false, float_output);
  const int64_t channels = view.header->n;
  const ConvGeometry g =
      check_conv(kOp, x, view, channels, kernel_size, stride, padding, dilation, channels);
  check_residual(kOp, view, residual, g.out_shape());
  Tensor out = empty_nhwc(g.out_shape(), float_output ? ScalarType::Float : ScalarType::Byte);
  if (out.numel() == 0) return out;
  x = as_nhwc(x);
  if (residual) residual = as_nhwc(*residual);
  const GemmOutput output = bind_output(out, residual, float_output, channels);
  run_depthwise(view, g, static_cast<const uint8_t*>(x.const_data_ptr()),
                view.header->x_zero_point, output);
  return out;
}

}  // namespace fastinfer
