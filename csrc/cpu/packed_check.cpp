#include "packed_check.h"

namespace fastinfer {
namespace {

const char* op_name(int32_t op) {
  switch (static_cast<PackedOp>(op)) {
    case PackedOp::kLinear:
      return "linear";
    case PackedOp::kConv2d:
      return "conv2d";
    case PackedOp::kDepthwiseConv2d:
      return "depthwise_conv2d";
  }
  return "an unknown op";
}

const char* layout_name(int32_t layout) {
  if (layout == 0) return "canonical";
  return layout == kLayoutCuda ? "cuda" : isa_name(static_cast<Isa>(layout));
}

}  // namespace

PackedView view_packed(const char* op, const Tensor& packed, PackedOp wanted, bool dynamic,
                       bool float_output) {
  check_dtype(op, "packed", packed, ScalarType::Byte);
  STD_TORCH_CHECK(packed.dim() == 1 && packed.is_contiguous() &&
                      packed.numel() >= kPackedHeaderBytes,
                  op, ": packed: expected a contiguous 1-D buffer of at least ",
                  kPackedHeaderBytes, " bytes, got ", shape_text(packed));
  const auto* base = static_cast<const uint8_t*>(packed.const_data_ptr());
  const auto* h = reinterpret_cast<const PackedHeader*>(base);
  STD_TORCH_CHECK(std::memcmp(h->magic, kPackedMagic, 4) == 0 && h->version == kPackedVersion, op,
                  ": packed: not a packed weight of version ", kPackedVersion,
                  "; pack it with int8_prepack");
  STD_TORCH_CHECK(h->total_bytes == packed.numel(), op, ": packed: expected ", h->total_bytes,
                  " bytes, got ", packed.numel());
  STD_TORCH_CHECK(h->op == static_cast<int32_t>(wanted), op,
                  ": packed: expected a weight packed for ",
                  op_name(static_cast<int32_t>(wanted)), ", got one for ", op_name(h->op));
  const Isa isa = current_isa();
  STD_TORCH_CHECK(h->layout == static_cast<int32_t>(isa), op, ": packed: expected layout ",
                  isa_name(isa), ", the ISA in force, got ",
                  layout_name(h->layout),
                  "; pack it again (fastinfer.nn.repack(model))");
  STD_TORCH_CHECK(h->has(kFlagDynamic) == dynamic, op, ": packed: expected a ",
                  dynamic ? "dynamic" : "static", " weight, got a ",
                  dynamic ? "static" : "dynamic", " one");
  STD_TORCH_CHECK(h->has(kFlagFloatOutput) == float_output, op,
                  ": float_output does not match the packed weight, which answers in ",
                  h->has(kFlagFloatOutput) ? "float32" : "uint8");
  return {h, base, &table_of(isa)};
}

void check_residual(const char* op, const PackedView& view, const std::optional<Tensor>& residual,
                    const std::vector<int64_t>& shape) {
  STD_TORCH_CHECK(view.header->has(kFlagResidual) == residual.has_value(), op,
                  ": residual: the weight was packed for ",
                  view.header->has(kFlagResidual) ? "a residual" : "no residual");
  if (!residual) return;
  check_dtype(op, "residual", *residual,
              view.header->has(kFlagFloatOutput) ? ScalarType::Float : ScalarType::Byte);
  bool same = residual->dim() == static_cast<int64_t>(shape.size());
  for (size_t i = 0; same && i < shape.size(); i++) {
    same = residual->sizes()[static_cast<int64_t>(i)] == shape[i];
  }
  STD_TORCH_CHECK(same, op, ": expected residual with the result's shape, got ",
                  shape_text(*residual));
}

GemmOutput bind_output(const Tensor& out, const std::optional<Tensor>& residual,
                       bool float_output, int64_t ldc) {
  GemmOutput output;
  output.ldc = ldc;
  const void* from = residual ? residual->const_data_ptr() : nullptr;
  if (float_output) {
    output.out_f32 = static_cast<float*>(out.mutable_data_ptr());
    output.residual_f32 = static_cast<const float*>(from);
  } else {
    output.out_u8 = static_cast<uint8_t*>(out.mutable_data_ptr());
    output.residual_u8 = static_cast<const uint8_t*>(from);
  }
  return output;
}

}  // namespace fastinfer
