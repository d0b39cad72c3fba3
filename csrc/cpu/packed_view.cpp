#include "packed_view.h"

namespace fastinfer {

Epilogue PackedView::epilogue(int64_t at) const {
  const PackedHeader& h = *header;
  Epilogue e{};
  const bool dynamic = h.has(kFlagDynamic);
  e.kind = dynamic                       ? EpilogueKind::kDynamic
           : h.has(kFlagFloatOutput)     ? EpilogueKind::kFloat
                                         : EpilogueKind::kUint8;
  e.bias = section<int32_t>(h.bias) + at;
  e.multiplier = section<float>(h.multiplier) + at;
  if (h.residual_multiplier) e.residual_multiplier = section<float>(h.residual_multiplier) + at;
  if (dynamic) {
    e.weight_sum = section<int32_t>(h.weight_sum) + at;
    e.float_bias = section<float>(h.float_bias) + at;
  }
  e.out_zero_point = h.out_zero_point;
  e.qmin = h.qmin;
  e.qmax = h.qmax;
  e.unbounded = h.has(kFlagUnbounded);
  e.clamp_min = h.clamp_min;
  e.clamp_max = h.clamp_max;
  return e;
}

}  // namespace fastinfer
