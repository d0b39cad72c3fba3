// The AVX-512 VNNI + VBMI table.
#include "vnni_table.h"

#include "../micro/int8_gemm_groups.h"
#include "../micro/int8_gemm_turns.h"

namespace fastinfer {

// 14 rows, or two tiles of 7 in turn, x 32 channels, or 14 rows x 16: 28 (14) accumulators of 32
// registers, and a broadcast feeds two (one) dot products, so the dot product is the bottleneck. A result
// costs more where tiles are not taken in turn.
const KernelTable kAvx512VnniTable = vnni_table<Isa::kAvx512Vnni>(
    {GemmForm::kRows,
     32,
     {/*single=*/1.0f, /*pair=*/0, /*result=*/4.0f, /*widen=*/0},
     turn_kernels<VecAvx512Vnni>(Heights<13>())},
    {GemmForm::kRows,
     16,
     {/*single=*/1.08f, /*pair=*/0, /*result=*/5.5f, /*widen=*/0},
     dot_kernels<VecAvx512Vnni, 1>(Heights<13>())},
    {GemmForm::kGroups,
     16,
     {/*single=*/1.5f, /*pair=*/0, /*result=*/5.5f, /*widen=*/0},
     group_kernels<VecAvx512Vnni>(Heights<14>())},
    /*dot=*/1.0f, peak_dot<VecAvx512Vnni>, /*finish=*/nullptr);

}  // namespace fastinfer
