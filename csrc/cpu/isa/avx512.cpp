// The AVX-512 table for CPUs without VNNI.
#include "../micro/vec_avx512.h"

#include "../micro/int8_depthwise.h"
#include "../micro/int8_gemm_pairs.h"
#include "../micro/quantize_rows.h"

namespace fastinfer {

const KernelTable kAvx512Table = {
    Isa::kAvx512,
    /*packs_rows=*/false,
    /*sums_pairs=*/true,
    {{16,
      8,
      {int8_gemm_pairs<VecAvx512, 1>, int8_gemm_pairs<VecAvx512, 2>,
       int8_gemm_pairs<VecAvx512, 3>, int8_gemm_pairs<VecAvx512, 4>,
       int8_gemm_pairs<VecAvx512, 5>, int8_gemm_pairs<VecAvx512, 6>,
       int8_gemm_pairs<VecAvx512, 7>, int8_gemm_pairs<VecAvx512, 8>}},
     {}},
    /*depthwise_block=*/64,
    /*depthwise_taps=*/2,
    /*depthwise_bytes=*/2,
    int8_depthwise<VecAvx512, PairTaps>,
    quantize_rows<VecAvx512>,
    dequantize_rows<VecAvx512>,
    min_max_rows<VecAvx512>,
    lookup_bytes,
};

}  // namespace fastinfer
