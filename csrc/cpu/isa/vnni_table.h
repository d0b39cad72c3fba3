// What the tables of CPUs with AVX-512 VNNI + VBMI have in common: all but their GEMMs.
#pragma once

#include "../micro/float_rows.h"
#include "../micro/vec_avx512vnni.h"

#include "../micro/int8_depthwise_rows.h"
#include "../micro/int8_gemm_dot.h"
#include "../micro/lerp_rows.h"
#include "../micro/peak_rounds.h"
#include "../micro/pointwise_rows.h"
#include "../micro/pool_rows.h"
#include "../micro/quantize_rows.h"

namespace fastinfer {
namespace {

inline void lookup_rows(const uint8_t* x, uint8_t* out, int64_t n, const uint8_t* table) {
  using Vec = VecAvx512Vnni;
  const Vec::Int t[4] = {Vec::load(table), Vec::load(table + 64), Vec::load(table + 128),
                         Vec::load(table + 192)};
  int64_t i = 0;
  for (; i + 64 <= n; i += 64) Vec::store(out + i, Vec::lookup(Vec::load(x + i), t));
  lookup_bytes(x + i, out + i, n - i, table);
}

constexpr KernelTable vnni_table(Isa isa, const GemmFamily& wide, const GemmFamily& narrow,
                                 int64_t (*peak)(int64_t), void (*finish)()) {
  using Vec = VecAvx512Vnni;
  return {
      isa,
      {wide, narrow},
      /*lanes=*/Vec::kLanes,
      /*depthwise_block=*/64,
      /*depthwise_taps=*/4,
      /*depthwise_bytes=*/1,
      int8_depthwise_rows<Vec>,
      quantize_rows<Vec>,
      dequantize_rows<Vec>,
      min_max_rows<Vec>,
      lookup_rows,
      /*widen=*/nullptr,
      add_rows<Vec>,
      mul_rows<Vec>,
      requantize_rows<Vec>,
      max_rows<Vec>,
      mean_rows<Vec>,
      lerp_rows<Vec>,
      layer_norm_rows<Vec>,
      softmax_rows<Vec>,
      peak,
      finish,
  };
}

}  // namespace
}  // namespace fastinfer
