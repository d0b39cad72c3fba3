"""Mistakes in the kernels for sparse weights that the interpreter must find."""

from __future__ import annotations

from host.runs import Tile
from interpreter import AHEAD
from interpreter.faults import BARRIER, DEADLOCK, INVALID, OUT_OF_BOUNDS, RACE, UNINITIALISED
from ptx_cases import CLAMPED, F32_RESIDUAL, RESIDUAL, Product, conv, linear
from ptx_mutants import CONFLICTS, WRONG, Mutant
from ptx_mutants import MUTANTS as DENSE_MUTANTS
from ptx_sparse_cases import FILLED_WIDE, PAIRS

from fastinfer.testing.cases import Conv

_ONE, _TWO = Tile("sparse_wgmma", 64, 64), Tile("sparse_wgmma", 128, 128)
_PAIR = Tile("sparse_wgmma", 256, 128, 2)
_RING = Product(linear((84,), 80, 1072, RESIDUAL, PAIRS), _ONE, "matrix", 0, 1)
_RING_AHEAD = Product(_RING.case, _ONE, "matrix", 0, 1, AHEAD)
_FEW = Product(linear((20,), 48, 64, CLAMPED, PAIRS), _ONE, "matrix")
_TURNS = Product(linear((84,), 80, 64, CLAMPED, PAIRS), _ONE, "matrix", 0, 1)
_TURNS_AHEAD = Product(linear((84,), 144, 64, CLAMPED, PAIRS), _ONE, "matrix", 0, 1, AHEAD)
_ODD = Product(linear((65,), 99, 208, F32_RESIDUAL, PAIRS), _ONE, "matrix")
_FILLED = Product(conv(FILLED_WIDE, RESIDUAL, PAIRS), _TWO, "pixels", 0, 2, AHEAD)
_TAIL = Product(conv(Conv(1, 64, (12, 11), 48), CLAMPED, PAIRS), _ONE, "pixels")
_SHARED = Product(linear((276,), 144, 688, RESIDUAL, PAIRS), _PAIR, "matrix", 0, 2)
_SHARED_AHEAD = Product(_SHARED.case, _PAIR, "matrix", 0, 2, AHEAD)
_SHARED_PIXELS = Product(conv(FILLED_WIDE, RESIDUAL, PAIRS), _PAIR, "pixels", 0, 2)

_FILE, _EPILOGUE = "int8_sparse_wgmma.cuh", "sparse_epilogue.cuh"

SPARSE_MUTANTS = (
    Mutant("sparse: a stage is not waited for", _FILE,
           "ptx::mbarrier_wait(ring.full(ring.stage), ring.phase);", "", _RING, (RACE,)),
    Mutant("sparse: a stage is overwritten while it is read", _FILE,
           "ptx::mbarrier_wait(ring.empty(ring.stage), ring.phase ^ 1);", "", _RING,
           (RACE, BARRIER)),
    Mutant("sparse: fewer bytes announced than come", _FILE,
           "ptx::mbarrier_arrive_expect(full, Tile::kStageBytes);",
           "ptx::mbarrier_arrive_expect(full, Tile::kStageBytes - 128);", _FEW, (DEADLOCK,)),
    Mutant("sparse: a stage is never released", _FILE,
           "if (block != 0) release(ring, previous, lane);", "", _RING, (DEADLOCK,)),
    Mutant("sparse: a stage is released too early", _FILE,
           "ptx::wgmma_wait<1>();", "ptx::wgmma_wait<2>();", _RING_AHEAD, (RACE,)),
    Mutant("sparse: the last products are not waited for", _FILE,
           "ptx::wgmma_wait<0>();", "", _RING, (WRONG, RACE)),
    Mutant("sparse: no fence before products", _FILE,
           "      ptx::wgmma_fence();\n", "", _FEW, (INVALID,)),
    Mutant("sparse: the sums of the last tile stay", _FILE,
           "places.x, block != 0)", "places.x, true)", _FEW, (WRONG,)),
    Mutant("sparse: places of the other step", _FILE,
           "places.y, true", "places.x, true", _RING, (WRONG,)),
    Mutant("sparse: places of another thread", _FILE,
           "64 * 64 + thread * 8", "64 * 64 + (thread ^ 1) * 8", _FEW, (WRONG,)),
    Mutant("sparse: weights of the same step", _FILE,
           "weights + 2, pixels", "weights, pixels", _RING, (WRONG,)),
    Mutant("sparse: pixels of the same step", _FILE,
           "pixels + next_64", "pixels", _RING, (WRONG,)),
    Mutant("sparse: rows of another swizzle", _FILE,
           "ptx::wgmma_descriptor(image, 64)", "ptx::wgmma_descriptor(image, 128)", _FEW,
           (WRONG, UNINITIALISED, RACE, OUT_OF_BOUNDS)),
    Mutant("sparse: another warpgroup's image", _FILE,
           "image = ring.b() + consumer * kTwoOfFourBytes", "image = ring.b()", _FILLED, (WRONG,)),
    Mutant("sparse: images of another block", _FILE,
           "panel) * blocks + block;", "panel) * blocks;", _RING, (WRONG,)),
    Mutant("sparse: an image beyond the last", _FILE,
           "min(tile.n * Tile::kConsumers + i, panels - 1)", "tile.n * Tile::kConsumers + i",
           Product(linear((40,), 48, 96, CLAMPED, PAIRS), _TWO, "matrix"), (INVALID,)),
    Mutant("sparse: the last block's boxes", _FILE,
           "(blocks - 1) * Tile::kBlockK) / c.pixel_bytes;",
           "(blocks - 1) * Tile::kBlockK) / c.pixel_bytes - 1;", _TAIL,
           (WRONG, DEADLOCK, RACE, UNINITIALISED)),
    Mutant("sparse: pixels for one block only", _FILE,
           "kAll = (1u << Tile::kCluster) - 1", "kAll = 1", _SHARED, (DEADLOCK,)),
    Mutant("sparse: another share of the pixels", _FILE,
           "tile.m * Tile::kCluster + rank, walk", "tile.m * Tile::kCluster, walk",
           _SHARED_PIXELS, (WRONG,)),
    Mutant("sparse: a block leaves early", _FILE,
           "  if constexpr (Tile::kCluster > 1) ptx::cluster_sync();\n}", "}", _SHARED_AHEAD,
           (BARRIER,)),
    Mutant("sparse: padding is not fenced", _FILE,
           "          ptx::fence_before_wgmma();\n", "", _FILLED, (RACE,)),
    Mutant("sparse: padding of half of the warpgroups", _FILE,
           "ptx::group_sync(1, kWarpgroup * Tile::kConsumers);",
           "ptx::group_sync(8 + consumer, kWarpgroup);", _FILLED, (RACE,)),
    Mutant("sparse: padding of other rows", _FILE,
           "padding[i].start(c, row0 + first_fill + i * 64, thread)",
           "padding[i].start(c, row0 + i * 64, thread)", _FILLED, (WRONG,)),
    Mutant("turns: no barrier before they are stored", _EPILOGUE,
           "    ptx::group_sync(barrier, 128);\n    const uint4", "    const uint4", _TURNS,
           (RACE, UNINITIALISED)),
    Mutant("turns: no barrier behind the residual", _EPILOGUE,
           "      ptx::group_sync(barrier, 128);\n", "", _RING, (RACE, UNINITIALISED)),
    Mutant("turns: no barrier before the first", _EPILOGUE,
           "  ptx::group_sync(barrier, 128);  // the last", "  // the last", _TURNS_AHEAD, (RACE,)),
    Mutant("turns: one half only", _EPILOGUE,
           "i % 2 * (kTurnBytes / 2)", "0 * i", _TURNS_AHEAD, (RACE,)),
    Mutant("turns: filled without a swizzle", _EPILOGUE,
           "((warp ^ (lane >> 1 & 3)) << 4)", "(warp << 4)", _TURNS, (WRONG, CONFLICTS)),
    Mutant("turns: two pixels mixed up", _EPILOGUE,
           "code[pixel * 2 + channel] =", "code[channel * 2 + pixel] =", _TURNS, (WRONG,)),
    Mutant("turns: a row too many", _EPILOGUE,
           "is_there = is_channel && row < e.m;", "is_there = is_channel && row <= e.m;",
           _FEW, (OUT_OF_BOUNDS,)),
    Mutant("turns: sixteen channels too many", _EPILOGUE,
           "is_channel = channel + part * 16 < e.n;", "is_channel = true;", _FEW,
           (OUT_OF_BOUNDS, WRONG)),
    Mutant("sparse: a channel too many is stored", _FILE,
           "row < e.m && channel + half < e.n", "row < e.m && channel + half <= e.n", _ODD,
           (OUT_OF_BOUNDS, WRONG)),
    Mutant("sparse: another layer's weight", _EPILOGUE,
           "->index != c.sparse", "->index == c.sparse", _FEW, ("trap",)),
)  # fmt: skip
_WARPS = Tile("sparse_mma", 64, 64)
_WARPS_LONG = Product(linear((84,), 80, 336, RESIDUAL, PAIRS), _WARPS, "matrix")
_WARPS_FEW = Product(linear((20,), 48, 64, CLAMPED, PAIRS), _WARPS, "matrix")
_WARPS_ODD = Product(linear((70,), 67, 144, F32_RESIDUAL, PAIRS), _WARPS, "matrix")
_WARPS_FILE = "int8_sparse_mma.cuh"

WARP_MUTANTS = (
    Mutant("mma.sp: stages without a barrier", _WARPS_FILE,
           "    __syncthreads();\n    copy(block", "    copy(block", _WARPS_LONG, (RACE,)),
    Mutant("mma.sp: waits for a group too few", _WARPS_FILE,
           "cp_async_wait<Tile::kStages - 2>()", "cp_async_wait<Tile::kStages - 1>()",
           _WARPS_LONG, (RACE,)),
    Mutant("mma.sp: sums do not start at zero", _WARPS_FILE,
           "acc[Tile::kFragmentsN][Tile::kFragmentsM][4] = {};",
           "acc[Tile::kFragmentsN][Tile::kFragmentsM][4];", _WARPS_FEW, (WRONG,)),
    Mutant("mma.sp: places of the first block", _WARPS_FILE,
           "load_places(c, words, next, i);", "load_places(c, words, 0, i);", _WARPS_LONG,
           (WRONG,)),
    Mutant("mma.sp: places of an even block", _WARPS_FILE,
           "block % 2 * 4;", "0;", _WARPS_LONG, (WRONG,)),
    Mutant("mma.sp: places beyond the last block", _WARPS_FILE,
           "min(block + 1, blocks - 1)", "block + 1 + 4096", _WARPS_FEW, (OUT_OF_BOUNDS,)),
    Mutant("mma.sp: stored weights of the other half", _WARPS_FILE,
           "block % 2 * 2 + half", "(block + 1) % 2 * 2 + half", _WARPS_LONG, (WRONG,)),
    Mutant("mma.sp: stored rows without their swizzle", _WARPS_FILE,
           "((chunk ^ (in_panel >> 1 & 3)) << 4)", "(chunk << 4)", _WARPS_FEW, (WRONG,)),
    Mutant("mma.sp: no swizzle of a stage", _WARPS_FILE,
           "(chunk ^ (row >> 2 & 1))", "chunk", _WARPS_FEW, (CONFLICTS,)),
    Mutant("mma.sp: a panel beyond the last", _WARPS_FILE,
           "min(channel / kTwoOfFourPanel, last)", "channel / kTwoOfFourPanel + 9", _WARPS_FEW,
           (OUT_OF_BOUNDS, INVALID, WRONG)),
    Mutant("mma.sp: results over stages that are read", _WARPS_FILE,
           "  __syncthreads();  // stages are no longer read\n", "", _WARPS_FEW, (RACE,)),
    Mutant("mma.sp: results stored without a barrier", _WARPS_FILE,
           "  __syncthreads();\n  move_results<Tile, false>", "  move_results<Tile, false>",
           _WARPS_FEW, (RACE, UNINITIALISED)),
    Mutant("mma.sp: residual without a barrier", _WARPS_FILE,
           "    __syncthreads();\n  }\n  if (!is_fast)", "  }\n  if (!is_fast)", _WARPS_LONG,
           (RACE, UNINITIALISED)),
    Mutant("mma.sp: a row too many", _WARPS_FILE,
           "row0 + pixel >= e.m ||", "row0 + pixel > e.m ||", _WARPS_FEW, (OUT_OF_BOUNDS,)),
    Mutant("mma.sp: a channel too many", _WARPS_FILE,
           "if (channel >= e.n) continue;", "if (channel > e.n) continue;", _WARPS_ODD,
           (OUT_OF_BOUNDS, WRONG)),
)  # fmt: skip

_GATHER = Tile("gather_wgmma", 128, 64)
_KEPT = Product(linear((148,), 80, 1152, RESIDUAL, "v64"), _GATHER, "matrix", 0, 1)
_KEPT_AHEAD = Product(_KEPT.case, _GATHER, "matrix", 0, 1, AHEAD)
_KEPT_FEW = Product(linear((20,), 48, 64, CLAMPED, "v64"), _GATHER, "matrix")
_KEPT_FILLED = Product(conv(FILLED_WIDE, RESIDUAL, "v64"), _GATHER, "pixels", 0, 2, AHEAD)
_HALF = Product(linear((70,), 64, 192, F32_RESIDUAL, "v128 half"), _GATHER, "matrix")
_GATHER_FILE = "int8_gather_wgmma.cuh"

GATHER_MUTANTS = (
    Mutant("gather: a stage is not waited for", _GATHER_FILE,
           "ptx::mbarrier_wait(ring.full(ring.stage), ring.phase);", "", _KEPT,
           (RACE, UNINITIALISED)),
    Mutant("gather: a stage is overwritten while it is read", _GATHER_FILE,
           "ptx::mbarrier_wait(ring.empty(ring.stage), ring.phase ^ 1);", "", _KEPT,
           (RACE, BARRIER)),
    Mutant("gather: fewer bytes announced than come", _GATHER_FILE,
           "Tile::kBytesA + Tile::kImageBytes);", "Tile::kBytesA);", _KEPT_FEW,
           (RACE, DEADLOCK, UNINITIALISED)),
    Mutant("gather: a stage is released too early", _GATHER_FILE,
           "ptx::wgmma_wait<1>();", "ptx::wgmma_wait<2>();", _KEPT_AHEAD, (RACE,)),
    Mutant("gather: the last products are not waited for", _GATHER_FILE,
           "ptx::wgmma_wait<0>();", "", _KEPT, (WRONG, RACE)),
    Mutant("gather: no fence before products", _GATHER_FILE,
           "      ptx::wgmma_fence();\n", "", _KEPT_FEW, (INVALID,)),
    Mutant("gather: the sums of the last tile stay", _GATHER_FILE,
           "block != 0 || step != 0", "true", _KEPT_FEW, (WRONG,)),
    Mutant("gather: another warpgroup's rows", _GATHER_FILE,
           "row = own + warp * 16", "row = warp * 16", _KEPT, (WRONG,)),
    Mutant("gather: rows without a swizzle", _GATHER_FILE,
           "row | (place ^ turn)", "row | place", _KEPT_FEW, (WRONG,)),
    Mutant("gather: windows swizzled as rows of a matrix", _GATHER_FILE,
           "(row >> 1 & 3) << 4", "(row & 3) << 4", _KEPT_FILLED, (WRONG,)),
    Mutant("gather: places of another lane", _GATHER_FILE,
           "lane % 4 * 16;", "lane / 8 * 16;", _KEPT_FEW, (WRONG,)),
    Mutant("gather: places of the same step", _GATHER_FILE,
           "places + step * 64", "places", _HALF, (WRONG,)),
    Mutant("gather: weights of the same step", _GATHER_FILE,
           "b + 2 * step", "b", _HALF, (WRONG,)),
    Mutant("gather: rows of another swizzle", _GATHER_FILE,
           "wgmma_descriptor(ring.b(), Tile::kRowBytes)", "wgmma_descriptor(ring.b(), 128)",
           _KEPT_FEW, (WRONG, UNINITIALISED, RACE)),
    Mutant("gather: two bytes mixed up", _GATHER_FILE,
           "front, back, 0x5410", "front, back, 0x1054", _KEPT_FEW, (WRONG,)),
    Mutant("gather: images of another block", _GATHER_FILE,
           "tile.n) * blocks + block;", "tile.n) * blocks;", _KEPT, (WRONG,)),
    Mutant("gather: the last block's boxes", _GATHER_FILE,
           "(blocks - 1) * Tile::kBlockK) / c.pixel_bytes;",
           "(blocks - 1) * Tile::kBlockK) / c.pixel_bytes - 1;", _KEPT_FILLED,
           (WRONG, DEADLOCK, RACE, UNINITIALISED)),
    Mutant("gather: padding is not filled", _GATHER_FILE,
           "padding[i].fill(c, ring.a(), consumer);", "{}", _KEPT_FILLED, (WRONG,)),
    Mutant("gather: another layer's weight", _GATHER_FILE,
           "h.pixels != Tile::kBlockN", "h.pixels == Tile::kBlockN", _KEPT_FEW, ("trap",)),
)  # fmt: skip
_PATCH = Tile("patch_wgmma", 128, 64)
_DEEP = Product(conv(Conv(3, 256, (7, 6), 80), RESIDUAL, "v64"), _PATCH, "pixels", 0, 2)
_DEEP_AHEAD = Product(_DEEP.case, _PATCH, "pixels", 0, 1, AHEAD)
_LINES = Product(conv(Conv(2, 64, (9, 30), 80), CLAMPED, "v64"), _PATCH, "pixels", 0, 2)
#: Fewer taps than stages of weights: else a patch is only copied when the last one was read.
_MANY = Product(_LINES.case, _PATCH, "pixels", 0, 1)
_MANY_AHEAD = Product(_LINES.case, _PATCH, "pixels", 0, 1, AHEAD)
_PATCH_FILE = "int8_patch_wgmma.cuh"

PATCH_MUTANTS = (
    Mutant("patch: a patch is not waited for", _PATCH_FILE,
           "ptx::mbarrier_wait(patches.full(patches.stage), patches.phase);", "", _DEEP,
           (RACE, UNINITIALISED)),
    Mutant("patch: overwritten while it is read", _PATCH_FILE,
           "ptx::mbarrier_wait(patches.empty(patches.stage), patches.phase ^ 1);", "",
           _MANY_AHEAD, (RACE, BARRIER)),
    Mutant("patch: never released", _PATCH_FILE,
           "if (lane == 0) ptx::mbarrier_arrive(patches.empty(patches.stage));", "", _MANY,
           (DEADLOCK,)),
    Mutant("patch: weights are not waited for", _PATCH_FILE,
           "ptx::mbarrier_wait(ring.full(ring.stage), ring.phase);", "", _DEEP,
           (RACE, UNINITIALISED)),
    Mutant("patch: weights overwritten while they are read", _PATCH_FILE,
           "ptx::mbarrier_wait(ring.empty(ring.stage), ring.phase ^ 1);", "", _DEEP,
           (RACE, BARRIER)),
    Mutant("patch: weights released too early", _PATCH_FILE,
           "ptx::wgmma_wait<1>();", "ptx::wgmma_wait<2>();", _DEEP_AHEAD, (RACE,)),
    Mutant("patch: more bytes announced than come", _PATCH_FILE,
           "s.pixels() * s.pixel_bytes);\n      ptx::load_patch",
           "s.pixels() * s.pixel_bytes + 64);\n      ptx::load_patch", _LINES, (DEADLOCK,)),
    Mutant("patch: the sums of the last tile stay", _PATCH_FILE,
           "acc, a, b, previous >= 0", "acc, a, b, true", _LINES, (WRONG,)),
    Mutant("patch: images of another part", _PATCH_FILE,
           "i * chunks + chunk;", "i * chunks;", _DEEP, (WRONG,)),
    Mutant("patch: taps in lines too long", _PATCH_FILE,
           "if (++column == c.windows.kw)", "if (++column > c.windows.kw)", _LINES, (WRONG,)),
    Mutant("patch: the second tap is the first", _PATCH_FILE,
           "is_high ? high[half].at : low[half].at", "low[half].at", _LINES, (WRONG,)),
    Mutant("patch: another turn of the second tap", _PATCH_FILE,
           "is_high ? high[half].turn : low[half].turn", "low[half].turn", _LINES, (WRONG,)),
    Mutant("patch: padding of another value", _PATCH_FILE,
           "      if (is_filled) {", "      if (false) {", _LINES, (WRONG,)),
    Mutant("patch: padding without a barrier", _PATCH_FILE,
           "  ptx::group_sync(1, kWarpgroup * Tile::kConsumers);\n}", "}", _LINES, (RACE,)),
    Mutant("patch: a column of padding too few", _PATCH_FILE,
           "static_cast<uint32_t>(x) < static_cast<uint32_t>(c.windows.width);",
           "static_cast<uint32_t>(x) <= static_cast<uint32_t>(c.windows.width);", _LINES, (WRONG,)),
    Mutant("patch: a line of outputs too few", _PATCH_FILE,
           "rows = min(s.rows, c.windows.out_height - line);",
           "rows = min(s.rows, c.windows.out_height - line) - 1;", _LINES, (WRONG,)),
    Mutant("patch: another layer's weight", _PATCH_FILE,
           "h.pixels != Tile::kBlockN", "h.pixels == Tile::kBlockN", _LINES, ("trap",)),
)  # fmt: skip
MUTANTS: tuple[Mutant, ...] = (
    *DENSE_MUTANTS,
    *SPARSE_MUTANTS,
    *WARP_MUTANTS,
    *GATHER_MUTANTS,
    *PATCH_MUTANTS,
)
