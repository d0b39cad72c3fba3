// The AMX table: AVX-512 VNNI + VBMI with GEMMs in tile registers.
#include "vnni_table.h"

#include "../micro/int8_gemm_tiles.h"

namespace fastinfer {

// Costs as measured on Granite Rapids, for a row of one vector: a register's step of 16 rows and 16
// quads takes 20 cycles, loads included.
const KernelTable kAmxTable = vnni_table<Isa::kAmx>(
    {GemmForm::kTiles,
     32,
     {/*single=*/0.08f, /*pair=*/0, /*result=*/3.0f, /*widen=*/0},
     tile_kernels<VecAvx512Vnni, 2>()},
    {GemmForm::kTiles,
     16,
     {/*single=*/0.1f, /*pair=*/0, /*result=*/3.0f, /*widen=*/0},
     tile_kernels<VecAvx512Vnni, 1>()},
    /*groups=*/{},
    /*dot=*/0.5f, peak_tiles, release_tiles);

}  // namespace fastinfer
