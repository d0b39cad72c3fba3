// The AVX-512 table for CPUs without VNNI.
#include "../micro/channel_means.h"
#include "../micro/column_lines.h"
#include "../micro/float_rows.h"
#include "../micro/float_steps.h"
#include "../micro/vec_avx512.h"

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
#include "../micro/winograd.h"

namespace fastinfer {

using Vec = VecAvx512;

// By counting instructions, but for what it leaves of a layer, which is measured. On a Zen 5 held to this ISA layers
// of six networks for which it is chosen take 0.37 to 0.96 of their time, but DenseNet-121's of 128 to 32
// channels on 7 x 7 pixels, of 8 us, 1.07 to 1.16 on two threads.
constexpr WinogradCost kWinogradCost = {/*input=*/450, /*weight=*/40, /*product=*/0.5f,
                                        /*output=*/175, /*direct=*/2.1f, /*direct_result=*/4,
                                        /*few=*/0.5f, /*many=*/0.4f};

// Words, 12 rows x 32 channels: 24 accumulators of 32 registers. Costs: two 512-bit ports, by
// counting instructions; not measured.
const KernelTable kAvx512Table = {
    Isa::kAvx512,
    {{GemmForm::kWords,
      32,
      {/*single=*/2.1f, /*pair=*/0, /*result=*/4.0f, /*widen=*/0.2f},
      words_kernels<Vec, 2>(Heights<12>())},
     {GemmForm::kPairs,
      16,
      {/*single=*/1.6f, /*pair=*/2.7f, /*result=*/5.0f, /*widen=*/0},
      pairs_kernels<Vec>(Heights<8>())}},
    /*lanes=*/Vec::kLanes,
    /*depthwise_block=*/64,
    /*depthwise_taps=*/2,
    /*depthwise_bytes=*/2,
    int8_depthwise<Vec, PairTaps>,
    /*depthwise_columns=*/nullptr,
    {winograd_kernels<WinogradWords<Vec>, 2>(kWinogradCost, Heights<12>())},
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
    sparse_float_kernels<Vec>(std::make_integer_sequence<int, 4>()),
    peak_pairs<Vec>,
    /*finish=*/nullptr,
};

}  // namespace fastinfer
