// int8_conv2d and int8_depthwise_conv2d.
#include "../../cpu/conv_driver.h"
#include "../../cpu/depthwise_driver.h"
#include "weighted_step.h"

namespace fastinfer::engine {
namespace {

struct Operands2d {
  int64_t stride[2], padding[2], dilation[2];
};

ConvGeometry conv_geometry(const char* step, const Instruction& instruction,
                           const Context& context, const PackedHeader& h, const Operands2d& o) {
  const Value& x = context.value(instruction.reads[0]);
  const bool is_depthwise = h.op == static_cast<int32_t>(PackedOp::kDepthwiseConv2d);
  const int64_t channels = is_depthwise ? h.n : int64_t{h.c_per_group} * h.groups;
  expect(x.dtype == Dtype::kUint8 && x.shape.size() == 4 && x.shape[1] == channels, step,
         "expected x uint8 [N, " + std::to_string(channels) + ", H, W], got " +
                   shape_text(x));
  ConvGeometry g{};
  g.batch = x.shape[0];
  g.channels = channels;
  g.pixel_step = context.pixel_step(instruction.reads[0]);
  g.height = x.shape[2];
  g.width = x.shape[3];
  g.out_channels = h.n;
  g.kh = h.kh;
  g.kw = h.kw;
  g.stride_h = o.stride[0];
  g.stride_w = o.stride[1];
  g.pad_h = o.padding[0];
  g.pad_w = o.padding[1];
  g.dilation_h = o.dilation[0];
  g.dilation_w = o.dilation[1];
  expect(g.stride_h > 0 && g.stride_w > 0 && g.dilation_h > 0 && g.dilation_w > 0 &&
             g.pad_h >= 0 && g.pad_w >= 0,
         step, "expected stride and dilation >= 1 and padding >= 0");
  expect(g.set_out_size(), step,
         "the padded input of " + shape_text(x) + " is smaller than the kernel");
  expect(is_depthwise || DirectConv::reaches(h, g), step,
         "expected lines under the kernel of fewer than 2^31 bytes, padding included, got " +
             shape_text(x) + "; split the image");
  return g;
}

class ConvStep : public WeightedStep {
 public:
  ConvStep(const char* name, const Instruction& instruction, Context& context, PackedOp op)
      : WeightedStep(name, instruction, context, op) {
    Operands operands(name, instruction);
    // The weight, whose header has the next ones: channels of the result, size of the kernel.
    operands.integers(op == PackedOp::kConv2d ? 4 : 3);
    Operands2d o{};
    for (auto* pair : {o.stride, o.padding, o.dilation}) {
      const auto numbers = operands.integers(2);
      pair[0] = numbers[0];
      pair[1] = numbers[1];
    }
    geometry_ = conv_geometry(name, instruction, context, *view_.header, o);
    set_result(context, {geometry_.batch, geometry_.out_channels, geometry_.out_height,
                         geometry_.out_width});
    is_empty_ = geometry_.out_pixels() == 0;
    out_step_ = context.pixel_step(instruction.out);
  }

 protected:
  GemmOutput output(const Frame& frame) const { return bind(frame, out_step_); }

  ConvGeometry geometry_;
  int64_t out_step_;
  bool is_empty_;
};

class DenseConvStep : public ConvStep {
 public:
  DenseConvStep(const Instruction& instruction, Context& context)
      : ConvStep("int8_conv2d", instruction, context, PackedOp::kConv2d),
        way_(conv_way(view_, geometry_)) {}

  Work work() const override {
    return driver(nullptr, {}).work();
  }
  void run(const Frame& frame, int thread, int threads) const override {
    if (is_empty_) return;
    driver(read(frame, 0), output(frame)).run_part(thread, threads);
  }

 private:
  ConvDriver driver(const uint8_t* x, const GemmOutput& output) const {
    return {way_, view_, geometry_, x, static_cast<uint8_t>(view_.header->x_zero_point), output};
  }

  ConvWay way_;
};

class DepthwiseConvStep : public ConvStep {
 public:
  DepthwiseConvStep(const Instruction& instruction, Context& context)
      : ConvStep("int8_depthwise_conv2d", instruction, context, PackedOp::kDepthwiseConv2d) {}

  Work work() const override {
    return DepthwiseDriver(view_, geometry_, nullptr, 0, {}).work();
  }
  void run(const Frame& frame, int thread, int threads) const override {
    if (is_empty_) return;
    DepthwiseDriver(view_, geometry_, read(frame, 0), view_.header->x_zero_point, output(frame))
        .run_part(thread, threads);
  }
};

}  // namespace

std::unique_ptr<Step> make_conv2d(const Instruction& instruction, Context& context) {
  return std::make_unique<DenseConvStep>(instruction, context);
}

std::unique_ptr<Step> make_depthwise_conv2d(const Instruction& instruction, Context& context) {
  return std::make_unique<DepthwiseConvStep>(instruction, context);
}

}  // namespace fastinfer::engine
