// What the tables of CPUs with AVX-512 VNNI + VBMI have in common: all but their GEMMs.
#pragma once

#include "../micro/channel_means.h"
#include "../micro/column_lines.h"
#include "../micro/float_rows.h"
#include "../micro/float_steps.h"
#include "../micro/lerp_plane.h"
#include "../micro/vec_avx512vnni.h"

#include "../micro/int8_depthwise_columns.h"
#include "../micro/int8_depthwise_rows.h"
#include "../micro/int8_gemm_dot.h"
#include "../micro/int8_gemm_sparse.h"
#include "../micro/interleave_rows.h"
#include "../micro/lerp_rows.h"
#include "../micro/peak_rounds.h"
#include "../micro/pointwise_rows.h"
#include "../micro/pool_rows.h"
#include "../micro/quantize_rows.h"
#include "../micro/sparse_float_rows.h"
#include "../micro/winograd.h"
#include "../micro/winograd_late.h"

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

// Costs fitted to Zen 5, 2026-11; what is left of a dense layer (few, many) lies between that and Zen 4.
template <int NV>
constexpr WinogradKernels vnni_winograd() {
  using Form = WinogradBytes<VecAvx512Vnni>;
  constexpr WinogradCost kCost = {/*input=*/450, /*weight=*/40, /*product=*/0.27f, /*output=*/175,
                                  /*direct=*/0.58f, /*direct_result=*/2, /*few=*/0.8f,
                                  /*many=*/0.72f};
  if constexpr (NV == 1) return winograd_kernels<Form, NV>(kCost, Heights<kWinogradRows>());
  return winograd_kernels<Form, NV>(kCost, Heights<kWinogradRows>(),
                                    winograd_late<Form, NV>(Heights<kWinogradLateRows>()));
}

// Of weights with zeros. The accumulators, a step of each row and a permuted one fill the 32 registers,
// so tiles are low, and a tile's start and end count for more: fitted to MobileNetV2's layers of 64 to
// 160 inputs (Granite Rapids, 2026-11).
//
// With one vector every product has a permute of its own, and how a core spreads them over its units depends
// on how they follow one another: in tiles of 7 rows ResNet-50's 3 x 3 layers on Zen 5 took 0.83 times as long.
// Neither these nor tiles in turn were measured on CPUs with AMX.
template <Isa kIsa, int NV>
constexpr GemmFamily sparse_family(float dot) {
  constexpr bool kHasTiles = kIsa == Isa::kAmx;
  using Kernels = Heights<NV == 2 ? 8 : kHasTiles ? 12 : 7>;
  constexpr float kResult = NV == 1 ? 8.0f : 6.0f;
  GemmFamily family = {GemmForm::kSparse,
                       NV * VecAvx512Vnni::kLanes,
                       {/*single=*/dot, /*pair=*/0, kResult, /*widen=*/0},
                       sparse_kernels<VecAvx512Vnni, NV>(Kernels()),
                       {peak_dot<VecAvx512Vnni>, sparse_rounds<VecAvx512Vnni, NV>}};
  if (kHasTiles) family.kernels.turn_rows = 0;
  return family;
}

// dot: what a dot product of vectors takes, in units of the dense families' costs.
template <Isa kIsa>
constexpr KernelTable vnni_table(const GemmFamily& wide, const GemmFamily& narrow,
                                 const GemmFamily& groups, float dot,
                                 int64_t (*peak)(int64_t), void (*finish)()) {
  using Vec = VecAvx512Vnni;
  return {
      kIsa,
      {wide,
       narrow,
       sparse_family<kIsa, 2>(dot),
       sparse_family<kIsa, 1>(dot),
       groups},
      /*lanes=*/Vec::kLanes,
      /*depthwise_block=*/64,
      /*depthwise_taps=*/4,
      /*depthwise_bytes=*/1,
      int8_depthwise_rows<Vec>,
      kIsa == Isa::kAmx ? nullptr : int8_depthwise_columns<Vec>,  // not measured with AMX
      // Tile registers multiply eight times as many int8's at once as vectors do int16's.
      {kIsa == Isa::kAmx ? WinogradKernels{} : vnni_winograd<2>(),
       kIsa == Isa::kAmx ? WinogradKernels{} : vnni_winograd<1>()},
      quantize_rows<Vec>,
      interleave3_rows,
      column_lines<Vec>,
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
      channel_means,
      lerp_plane,
      float_kernels<Vec>(),
      sparse_float_kernels<Vec>(std::make_integer_sequence<int, 4>()),
      peak,
      finish,
  };
}

}  // namespace
}  // namespace fastinfer
