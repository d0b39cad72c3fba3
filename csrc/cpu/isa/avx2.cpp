// The AVX2 table.
#include "../micro/channel_means.h"
#include "../micro/column_lines.h"
#include "../micro/float_rows.h"
#include "../micro/float_steps.h"
#include "../micro/int8_depthwise.h"
#include "../micro/int8_gemm_pairs.h"
#include "../micro/int8_gemm_words.h"
#include "../micro/interleave_rows.h"
#include "../micro/lerp_plane.h"
#include "../micro/lerp_rows.h"
#include "../micro/peak_rounds.h"
#include "../micro/pointwise_rows.h"
#include "../micro/pool_rows.h"
#include "../micro/quantize_rows.h"
#include "../micro/sparse_float_rows.h"
#include "../micro/vec_avx2.h"
#include "../micro/winograd.h"

namespace fastinfer {

using Vec = VecAvx2;

// By counting instructions, but for what it leaves of a layer, which is measured. On a Zen 5 held to AVX2 no layer
// of six networks for which it was chosen is slower than before.
constexpr WinogradCost kWinogradCost = {/*input=*/500, /*weight=*/30, /*product=*/0.34f,
                                        /*output=*/130, /*direct=*/1.28f, /*direct_result=*/4,
                                        /*few=*/0.5f, /*many=*/0.4f};

// 16 registers. Words, 6 rows x 16 channels: 12 accumulators, two weights, a broadcast and a
// product; 8 x 8 where 16 channels would pad. Pairs, 8 rows x 8 channels: narrow panels leave more
// entries safe to pair than wide ones. Costs as measured on Zen 3.
const KernelTable kAvx2Table = {
    Isa::kAvx2,
    {{GemmForm::kWords,
      16,
      {/*single=*/1.28f, /*pair=*/0, /*result=*/4.0f, /*widen=*/0.2f},
      words_kernels<Vec, 2>(Heights<6>())},
     {GemmForm::kWords,
      8,
      {/*single=*/1.35f, /*pair=*/0, /*result=*/5.0f, /*widen=*/0.2f},
      words_kernels<Vec, 1>(Heights<8>())},
     {GemmForm::kPairs,
      8,
      {/*single=*/1.15f, /*pair=*/1.88f, /*result=*/5.5f, /*widen=*/0},
      pairs_kernels<Vec>(Heights<8>())}},
    /*lanes=*/Vec::kLanes,
    /*depthwise_block=*/32,
    /*depthwise_taps=*/2,
    /*depthwise_bytes=*/2,
    int8_depthwise<Vec, PairTaps>,
    /*depthwise_columns=*/nullptr,
    {winograd_kernels<WinogradWords<Vec>, 2>(kWinogradCost, Heights<6>()),
     winograd_kernels<WinogradWords<Vec>, 1>(kWinogradCost, Heights<8>())},
    quantize_rows<Vec>,
    interleave3_rows,
    column_bytes,
    dequantize_rows<Vec>,
    min_max_rows<Vec>,
    lookup_bytes,
    widen_rows<Vec>,
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
    sparse_float_kernels<Vec>(std::make_integer_sequence<int, 6>()),
    peak_pairs<Vec>,
    /*finish=*/nullptr,
};

}  // namespace fastinfer
