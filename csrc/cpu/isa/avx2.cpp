// The AVX2 table.
#include "../micro/int8_depthwise.h"
#include "../micro/int8_gemm_pairs.h"
#include "../micro/quantize_rows.h"
#include "../micro/vec_avx2.h"

namespace fastinfer {

// 8 rows x 8 channels: narrow panels leave more entries safe to pair than wide ones, and 16
// registers hold 8 accumulators, two weights, two activations and the ones.
const KernelTable kAvx2Table = {
    Isa::kAvx2,
    /*packs_rows=*/false,
    /*sums_pairs=*/true,
    {{8,
      8,
      {int8_gemm_pairs<VecAvx2, 1>, int8_gemm_pairs<VecAvx2, 2>, int8_gemm_pairs<VecAvx2, 3>,
       int8_gemm_pairs<VecAvx2, 4>, int8_gemm_pairs<VecAvx2, 5>, int8_gemm_pairs<VecAvx2, 6>,
       int8_gemm_pairs<VecAvx2, 7>, int8_gemm_pairs<VecAvx2, 8>}},
     {}},
    /*depthwise_block=*/32,
    /*depthwise_taps=*/2,
    /*depthwise_bytes=*/2,
    int8_depthwise<VecAvx2, PairTaps>,
    quantize_rows<VecAvx2>,
    dequantize_rows<VecAvx2>,
    min_max_rows<VecAvx2>,
    lookup_bytes,
};

}  // namespace fastinfer
