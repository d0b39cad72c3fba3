// The AVX-512 VNNI + VBMI table.
#include "../micro/float_rows.h"
#include "../micro/vec_avx512vnni.h"

#include "../micro/int8_depthwise.h"
#include "../micro/int8_gemm_dot.h"
#include "../micro/lerp_rows.h"
#include "../micro/peak_rounds.h"
#include "../micro/pointwise_rows.h"
#include "../micro/pool_rows.h"
#include "../micro/quantize_rows.h"

namespace fastinfer {
namespace {

using Vec = VecAvx512Vnni;

void lookup_rows(const uint8_t* x, uint8_t* out, int64_t n, const uint8_t* table) {
  const Vec::Int t[4] = {Vec::load(table), Vec::load(table + 64), Vec::load(table + 128),
                         Vec::load(table + 192)};
  int64_t i = 0;
  for (; i + 64 <= n; i += 64) Vec::store(out + i, Vec::lookup(Vec::load(x + i), t));
  lookup_bytes(x + i, out + i, n - i, table);
}

}  // namespace

// 14 rows x 32 or 16 channels: 28 (14) accumulators of 32 registers, and a broadcast feeds two
// (one) dot products, so the dot product is the bottleneck.
const KernelTable kAvx512VnniTable = {
    Isa::kAvx512Vnni,
    {{GemmForm::kRows,
      32,
      {/*single=*/1.0f, /*pair=*/0, /*result=*/4.0f, /*widen=*/0},
      dot_kernels<Vec, 2>(Heights<14>())},
     {GemmForm::kRows,
      16,
      {/*single=*/1.08f, /*pair=*/0, /*result=*/4.0f, /*widen=*/0},
      dot_kernels<Vec, 1>(Heights<14>())}},
    /*lanes=*/Vec::kLanes,
    /*depthwise_block=*/64,
    /*depthwise_taps=*/4,
    /*depthwise_bytes=*/1,
    int8_depthwise<Vec, QuadTaps>,
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
    peak_dot<Vec>,
};

}  // namespace fastinfer
