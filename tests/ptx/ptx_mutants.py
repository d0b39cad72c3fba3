"""Mistakes that the interpreter must find: small changes of the kernels' sources."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

from host.build import CSRC, compile_ptx
from host.runs import Tile
from interpreter import AHEAD, Module
from interpreter.faults import (
    BARRIER,
    DEADLOCK,
    INVALID,
    OUT_OF_BOUNDS,
    RACE,
    UNINITIALISED,
)
from ptx_cases import (
    CLAMPED,
    F32_RESIDUAL,
    FILLED,
    FIRST,
    RESIDUAL,
    RESIDUAL_TABLE,
    SMALL,
    TABLE,
    U8,
    Depthwise,
    Launched,
    Product,
    Quantized,
    conv,
    depthwise,
    linear,
    square,
)
from ptx_cases_between import Between
from ptx_cases_first import First
from ptx_cases_rows import Dynamic, FloatRows, Ranges
from ptx_mutants_between import BETWEEN_MISTAKES, header_and_kernel
from ptx_mutants_first import FIRST_MISTAKES
from ptx_mutants_first import header_and_kernel as header_and_kernel_of_first
from ptx_mutants_rows import ROW_MISTAKES
from ptx_mutants_rows import header_and_kernel as header_and_kernel_of_rows

from fastinfer.testing.cases import Conv

WRONG = "wrong result"
CONFLICTS = "bank conflicts"


@dataclass(frozen=True)
class Mutant:
    """A mistake: what replaces which text of a file of csrc/cuda; on which launch it shows, how."""

    name: str
    path: str
    old: str
    new: str
    launch: Launched
    shows: tuple[str, ...]

    def __str__(self) -> str:
        return self.name.replace(" ", "_")

    @property
    def namespace(self) -> str:
        """What its code is in, in place of fastinfer."""
        return f"mutant_{crc32(self.name.encode())}"

    def kernel_name(self, name: str) -> str:
        """Return the mangled name, in the mutant's namespace, of a kernel's mangled name."""
        own = f"{len(self.namespace)}{self.namespace}"
        return name.replace("9fastinfer", own, 1)

    def text(self) -> str:
        """Return the file with the mistake made.

        Raises AssertionError where the text is not there exactly once: the mutant is out of date.
        """
        text = (CSRC / "cuda" / self.path).read_text()
        count = text.count(self.old)
        assert count == 1, f"{self.name}: {self.old!r} is {count} times there"
        return text.replace(self.old, self.new)

    @property
    def arch(self) -> str:
        """Architecture of the launch's kernel."""
        is_hopper = isinstance(self.launch, Product) and "wgmma" in self.launch.tile.kernel
        return "90a" if is_hopper else "80"

    def write(self, folder: Path) -> Path:
        """Copy what kernels include to a folder, with the mistake made; return cuda's copy."""
        cuda = folder / "cuda"
        cuda.mkdir(parents=True)
        for header in (CSRC / "packed.h", *CSRC.glob("cuda/*.cuh"), *CSRC.glob("cuda/*.h")):
            text = self.text() if header.name == self.path else header.read_text()
            # Else `#pragma once` takes equal files of two mutants for one.
            text += f"// {folder.name}\n"
            (folder / header.relative_to(CSRC)).write_text(text)
        return cuda


def _header_and_kernel(launch: Launched) -> tuple[str, str | None]:
    """Return the file of a launch's kernel, and the kernel's instantiation if it is a template."""
    if isinstance(launch, Between):
        return header_and_kernel(launch)
    if isinstance(launch, First):
        return header_and_kernel_of_first(launch)
    if isinstance(launch, FloatRows | Ranges | Dynamic):
        return header_and_kernel_of_rows(launch)
    if isinstance(launch, Depthwise):
        if launch.strips is None:
            return "int8_depthwise.cuh", None
        kernel = "int8_depthwise_strip<{}, {}>".format(*launch.strips)
        return "int8_depthwise.cuh", f"{kernel}(const GemmCall, {', '.join(['const int32_t'] * 4)})"
    if isinstance(launch, Quantized):
        names = {(): "quantize_in_order<{}>", (1, 3): "quantize_few_planes<{}, 3>"}
        name = names.get(launch.shape[:-2], "quantize_planes<{}>")
        kernel = name.format("FloatType::kFloat32")
        return "quantize.cuh", f"{kernel}(const QuantizeCall, bool)"
    t, source = launch.tile, launch.source.capitalize()
    if t.kernel == "mma":
        source = "Windows" if launch.source == "pixels" else source
        kernel = f"int8_gemm_mma<{t.block_m}, {t.block_n}, RowSource::k{source}>"
        rest = "int32_t, int32_t"
    elif t.kernel == "sparse_mma":
        source = "Windows" if launch.source == "pixels" else source
        kernel = f"int8_sparse_mma<{t.block_m}, {t.block_n}, RowSource::k{source}>"
        return (
            "int8_sparse_mma.cuh",
            f"{kernel}(const __grid_constant__ GemmCall, int32_t, int32_t)",
        )
    elif t.kernel == "patch_wgmma":
        is_wide = "true" if "x64x" not in launch.case.label else "false"
        maps = ", ".join(["const __grid_constant__ CUtensorMap"] * 2)
        rest = f"const __grid_constant__ GemmCall, const __grid_constant__ PatchShape, {maps}"
        kernel = f"int8_patch_wgmma<PatchTile<{t.block_n}>, {is_wide}>"
        return "int8_patch_wgmma.cuh", f"{kernel}({rest})"
    elif t.kernel == "gather_wgmma":
        steps = 2 if "half" in launch.case.label else 1
        maps = ", ".join(["const __grid_constant__ CUtensorMap"] * 2)
        tile = f"GatherTile<{t.block_m}, {t.block_n}, {steps}, RowSource::k{source}>"
        kernel = f"int8_gather_wgmma<{tile}>(const __grid_constant__ GemmCall, {maps})"
        return "int8_gather_wgmma.cuh", kernel
    elif t.kernel == "sparse_wgmma":
        parts = f"{t.block_n // 64}, {t.block_m}, {t.cluster}, RowSource::k{source}"
        maps = ", ".join(["const __grid_constant__ CUtensorMap"] * 2)
        kernel = f"int8_sparse_wgmma<SparseTile<{parts}>>(const __grid_constant__ GemmCall, {maps})"
        return "int8_sparse_wgmma.cuh", kernel
    else:
        parts = f"{t.block_m // 64}, {t.block_n}, {t.cluster}, RowSource::k{source}"
        kernel = f"int8_gemm_wgmma<WgmmaTile<{parts}>>"
        rest = ", ".join(["const __grid_constant__ CUtensorMap"] * 2)
    call = "const __grid_constant__ GemmCall"
    return f"int8_gemm_{t.kernel}.cuh", f"{kernel}({call}, {rest})"


def compile_mutants(mutants: tuple[Mutant, ...], folder: Path) -> Module:
    """Return the kernels of mutants of one architecture, from one unit: a namespace for each."""
    lines = ["#include <cuda.h>", "#include <cuda_runtime.h>", "#include <vector>"]
    for mutant in mutants:
        cuda = mutant.write(folder / mutant.namespace)
        header, kernel = _header_and_kernel(mutant.launch)
        lines += [f"#define fastinfer {mutant.namespace}", f'#include "{cuda / header}"']
        if kernel is not None:
            lines.append(f"namespace fastinfer::cuda {{ template __global__ void {kernel}; }}")
        lines.append("#undef fastinfer")
    source = folder / "mutants.cu"
    source.write_text("\n".join(lines) + "\n")
    return Module(compile_ptx(source, mutants[0].arch, folder))


def batches(mutants: tuple[Mutant, ...], size: int = 12) -> list[tuple[Mutant, ...]]:
    """Return mutants in units of one architecture that compile in about the same time."""
    found = []
    for arch in ("90a", "80"):
        mine = [m for m in mutants if m.arch == arch]
        found += [tuple(mine[i : i + size]) for i in range(0, len(mine), size)]
    return found


_MMA, _WGMMA, _PAIR = Tile("mma", 64, 64), Tile("wgmma", 64, 64), Tile("wgmma", 128, 256, 2)
_LONG = Product(linear((70,), 40, 464), _MMA, "matrix")
_SHORT = Product(linear((70,), 40, 96), _MMA, "matrix")
_TALL = Product(linear((70,), 72, 80), _MMA, "matrix")
_ODD = Product(linear((65,), 99, 208, F32_RESIDUAL), _MMA, "matrix")
_BYTES = Product(linear((20,), 21, 48, RESIDUAL), _MMA, "matrix")
_TABLE = Product(linear((3,), 8, 16, RESIDUAL_TABLE), _MMA, "matrix")
_NARROW = Product(linear((8,), 20, 37), _MMA, "narrow")
_FIRST = Product(conv(FIRST, RESIDUAL), _MMA, "narrow", 1)
_WINDOWS = Product(conv(SMALL), _MMA, "pixels")
_RING = Product(linear((84,), 72, 1072, RESIDUAL), _WGMMA, "matrix", 0, 1)
_RING_AHEAD = Product(_RING.case, _WGMMA, "matrix", 0, 1, AHEAD)
_FEW = Product(linear((20,), 40, 64, CLAMPED), _WGMMA, "matrix")
_FILLED = Product(conv(FILLED, RESIDUAL), _WGMMA, "pixels", 0, 2, AHEAD)
_TAIL = Product(conv(Conv(1, 96, (12, 11), 40), U8), _WGMMA, "pixels")
_SHARED_B = Product(linear((148,), 264, 560, RESIDUAL), _PAIR, "matrix", 0, 2)
_SHARED_B_AHEAD = Product(_SHARED_B.case, _PAIR, "matrix", 0, 2, AHEAD)
_ROW = Quantized((4097,))
_FEW_PLANES = Quantized((1, 3, 32, 36), True)
_PLANES = Quantized((1, 80, 13, 5), True)
_STRIP = Depthwise(depthwise(square(3, 1, 24, (7, 9))), (3, 1))
_STRIP_2 = Depthwise(depthwise(square(3, 2, 24, (7, 9))), (3, 2))
_STRIP_5 = Depthwise(depthwise(square(5, 1, 16, (1, 1)), weights="extreme"), (5, 1))
_STRIP_EDGE = Depthwise(depthwise(square(5, 1, 24, (7, 9))), (5, 1))
_IMAGES = Depthwise(depthwise(square(3, 1, 8, (5, 14), 3, 0), CLAMPED), (3, 1), 40, 4, 0, 2)
_ANY = Depthwise(depthwise(square(5, 2, 41, (9, 8)), TABLE), None)
_ANY_AT_1 = Depthwise(depthwise(square(3, 1, 16, (5, 6))), None, offset=1)
_ANY_WIDE = Depthwise(
    depthwise(Conv(1, 264, (3, 2), 264, (9, 1), padding=(4, 0), groups=264)), None
)

_DEPTHWISE_FILE = "int8_depthwise.cuh"
_MMA_FILE, _WGMMA_FILE = "int8_gemm_mma.cuh", "int8_gemm_wgmma.cuh"
_FILL_FILE = "padding_fill.cuh"

MUTANTS = (
    # --- int8_gemm_mma ---
    Mutant("mma: stages without a barrier", _MMA_FILE,
           "    __syncthreads();\n    copy(block", "    copy(block", _LONG, (RACE,)),
    Mutant("mma: waits for a group too few", _MMA_FILE,
           "cp_async_wait<Tile::kStages - 2>()", "cp_async_wait<Tile::kStages - 1>()",
           _LONG, (RACE,)),
    Mutant("mma: copies to the stage that is read", _MMA_FILE,
           "reader.copy(c, stage);", "reader.copy(c, base + (block + 1) % Tile::kStages * "
           "Tile::kStageBytes);", _LONG, (RACE, UNINITIALISED, WRONG)),
    Mutant("mma: a row too many is read", _MMA_FILE,
           "is_row[i] = r < c.m;", "is_row[i] = r <= c.m;", _SHORT, (OUT_OF_BOUNDS,)),
    Mutant("mma: a chunk of K too many is read", _MMA_FILE,
           "is_row[i] && k < c.run;", "is_row[i] && k <= c.run;", _SHORT, (OUT_OF_BOUNDS,)),
    Mutant("mma: no swizzle", _MMA_FILE,
           "(chunk ^ (row >> 1 & 3))", "chunk", _SHORT, (CONFLICTS,)),
    Mutant("mma: fragments of B mixed up", _MMA_FILE,
           "lane % 8 + lane / 16 * 8;", "lane % 16;", _SHORT, (WRONG,)),
    Mutant("mma: sums do not start at zero", _MMA_FILE,
           "acc[kFragmentsM][kFragmentsN][4] = {};", "acc[kFragmentsM][kFragmentsN][4];",
           _SHORT, (WRONG,)),
    Mutant("mma: the first stages are not stored", _MMA_FILE,
           "    copy(i);\n    finish(i);", "    copy(i);", _NARROW, (UNINITIALISED,)),
    Mutant("tiles: a band of rows that is not there", "tile_order.cuh",
           "min(m_tiles - first, kTileRows)", "kTileRows", _TALL, (WRONG, OUT_OF_BOUNDS)),
    # --- windows ---
    Mutant("windows: one line too many", "windows.cuh",
           "static_cast<uint32_t>(y) < static_cast<uint32_t>(w.height)",
           "static_cast<uint32_t>(y) <= static_cast<uint32_t>(w.height)",
           _WINDOWS, (OUT_OF_BOUNDS, WRONG)),
    Mutant("windows: padding of another value", "windows.cuh",
           "c.packed + kPaddingOffset;", "c.packed + kPaddingOffset - 16;", _WINDOWS, (WRONG,)),
    Mutant("windows: the second word is not read", "windows.cuh",
           "static_cast<int32_t>(offset) + run > 4", "static_cast<int32_t>(offset) + run > 5",
           _FIRST, (WRONG,)),
    Mutant("windows: bytes beyond a run", "windows.cuh",
           "if (4 * i + j < valid)", "if (4 * i + j <= valid)", _NARROW, (OUT_OF_BOUNDS, WRONG)),
    Mutant("windows: a tap too many in a row", "windows.cuh",
           "while (p.column >= c.windows.kw)", "while (p.column > c.windows.kw)",
           _FIRST, (WRONG, OUT_OF_BOUNDS)),
    # --- epilogue ---
    Mutant("epilogue: a row too many is stored", "epilogue.cuh",
           "if (row >= e.m) return;", "if (row > e.m) return;", _ODD, (OUT_OF_BOUNDS,)),
    Mutant("epilogue: a channel too many is stored", "epilogue.cuh",
           "const int valid = e.n - column;", "const int valid = e.n - column + 1;",
           _BYTES, (WRONG, OUT_OF_BOUNDS)),
    Mutant("epilogue: eights that are not aligned", "epilogue.cuh",
           "e.is_wide = c.n % kLaneChannels == 0 &&", "e.is_wide =", _BYTES, ("misaligned",)),
    Mutant("epilogue: codes without the zero point", "epilogue.cuh",
           "from_bits = -__float2int_rn(e.low) - kRoundingBits;", "from_bits = -kRoundingBits;",
           _TABLE, (WRONG,)),
    Mutant("epilogue: another layer's weight", "epilogue.cuh",
           "(h.run != c.run)", "(h.run == c.run)", _SHORT, ("trap",)),
    # --- int8_gemm_wgmma ---
    Mutant("wgmma: a stage is not waited for", _WGMMA_FILE,
           "ptx::mbarrier_wait(ring.full(ring.stage), ring.phase);", "", _RING, (RACE,)),
    Mutant("wgmma: a stage is overwritten while it is read", _WGMMA_FILE,
           "ptx::mbarrier_wait(ring.empty(ring.stage), ring.phase ^ 1);", "", _RING,
           (RACE, BARRIER)),
    Mutant("wgmma: fewer bytes announced than come", _WGMMA_FILE,
           "mbarrier_arrive_expect(full, Tile::kStageBytes)",
           "mbarrier_arrive_expect(full, Tile::kStageBytes - 128)", _FEW, (DEADLOCK,)),
    Mutant("wgmma: only A is announced", _WGMMA_FILE,
           "mbarrier_arrive_expect(full, Tile::kStageBytes)",
           "mbarrier_arrive_expect(full, Tile::kBytesA)", _RING, (RACE, DEADLOCK)),
    Mutant("wgmma: a stage is never released", _WGMMA_FILE,
           "if (block != 0) release(ring, previous, lane);", "", _RING, (DEADLOCK,)),
    Mutant("wgmma: a stage is released too early", _WGMMA_FILE,
           "ptx::wgmma_wait<1>();", "ptx::wgmma_wait<2>();", _RING_AHEAD, (RACE,)),
    Mutant("wgmma: the last products are not waited for", _WGMMA_FILE,
           "ptx::wgmma_wait<0>();", "", _RING, (WRONG, RACE)),
    Mutant("wgmma: no fence before products", _WGMMA_FILE,
           "      ptx::wgmma_fence();\n", "", _FEW, (INVALID,)),
    Mutant("wgmma: the sums of the last tile stay", _WGMMA_FILE,
           "b + 2 * step, block != 0 || step != 0", "b + 2 * step, true", _FEW, (WRONG,)),
    Mutant("wgmma: the phase does not change", _WGMMA_FILE,
           "phase ^= 1;", "", _RING, (DEADLOCK, RACE, BARRIER)),
    Mutant("wgmma: barriers that the copy engine may not see", _WGMMA_FILE,
           "    ptx::mbarrier_init_fence();\n", "", _FEW, (RACE,)),
    Mutant("wgmma: barriers used before they are initialised", _WGMMA_FILE,
           "    __syncthreads();\n", "", _FEW, (RACE, BARRIER)),
    Mutant("wgmma: a descriptor without swizzle", "mma.cuh",
           "| swizzle << 62;", "| (swizzle & 0) << 62;", _FEW,
           (WRONG, OUT_OF_BOUNDS, UNINITIALISED)),
    Mutant("wgmma: the last block's boxes", _WGMMA_FILE,
           "(blocks - 1) * Tile::kBlockK) / c.pixel_bytes;",
           "(blocks - 1) * Tile::kBlockK) / c.pixel_bytes - 1;", _TAIL,
           (WRONG, DEADLOCK, RACE, UNINITIALISED)),
    Mutant("cluster: B for one block only", _WGMMA_FILE,
           "(1u << Tile::kCluster) - 1)", "1u)", _SHARED_B, (DEADLOCK,)),
    Mutant("cluster: stages released in the own block only", _WGMMA_FILE,
           "ptx::mbarrier_arrive_at(ring.empty(stage), static_cast<uint32_t>(lane));",
           "ptx::mbarrier_arrive(ring.empty(stage));", _SHARED_B, (RACE,)),
    Mutant("cluster: a block leaves early", _WGMMA_FILE,
           "  if constexpr (Tile::kCluster > 1) ptx::cluster_sync();\n}", "}", _SHARED_B_AHEAD,
           (BARRIER,)),
    # --- padding ---
    Mutant("padding: of another value", _FILL_FILE,
           "codes = static_cast<uint32_t>(zero_point) * 0x01010101u;", "codes = 0u;",
           _FILLED, (WRONG,)),
    Mutant("padding: not fenced", _FILL_FILE,
           "    ptx::fence_before_wgmma();\n", "", _FILLED, (RACE,)),
    Mutant("padding: no barrier behind it", _FILL_FILE,
           "    ptx::group_sync(1 + consumer, 128);\n", "", _FILLED, (RACE,)),
    Mutant("padding: half a row is not filled", _FILL_FILE,
           "    if (!(is_swapped ? is_low : is_high)) fill_unit(stage + second);\n", "",
           _FILLED, (WRONG,)),
    Mutant("padding: both halves of a unit in one order", _FILL_FILE,
           "turn % 2 * 16;", "0u;", _FILLED, (CONFLICTS,)),
    Mutant("padding: units in one order", _FILL_FILE,
           "is_swapped = turn / 2 != 0;", "is_swapped = false;", _FILLED, (CONFLICTS,)),
    # --- depthwise ---
    Mutant("strip: bytes of two rows mixed up", _DEPTHWISE_FILE,
           "front_low, back_low, 0x7632", "front_low, back_low, 0x7623", _STRIP, (WRONG,)),
    Mutant("strip: a tap of the edge twice", _DEPTHWISE_FILE,
           "below[2][i], below[3][i], 0x40", "below[2][i], below[2][i], 0x40",
           _STRIP_5, (WRONG,)),
    Mutant("strip: the edge is summed a column early", _DEPTHWISE_FILE,
           "kHasEdge && tap == 3", "kHasEdge && tap == 2", _STRIP_EDGE, (WRONG,)),
    Mutant("strip: the second output's rows", _DEPTHWISE_FILE,
           "interleave_from(2, rows", "interleave_from(1, rows", _STRIP_2, (WRONG,)),
    Mutant("strip: the second output's row, one down", _DEPTHWISE_FILE,
           "words[0][i] >> 8;", "words[0][i];", _STRIP, (WRONG,)),
    Mutant("strip: a row too many of the image is read", _DEPTHWISE_FILE,
           "static_cast<uint32_t>(y) < static_cast<uint32_t>(w.height)",
           "static_cast<uint32_t>(y) <= static_cast<uint32_t>(w.height)",
           _STRIP, (OUT_OF_BOUNDS,)),
    Mutant("strip: padding of another value", _DEPTHWISE_FILE,
           "rows[row] = {padding, padding};", "rows[row] = {0, 0};", _STRIP, (WRONG,)),
    Mutant("strip: a second row that is not there", _DEPTHWISE_FILE,
           "out_y + 1 < w.out_height", "out_y + 1 <= w.out_height", _STRIP, (OUT_OF_BOUNDS,)),
    Mutant("strip: the last is as long as the others", _DEPTHWISE_FILE,
           "min(strip, w.out_width - out_x)", "strip", _STRIP, (OUT_OF_BOUNDS, WRONG)),
    Mutant("strip: outputs to its left are stored", _DEPTHWISE_FILE,
           "if (column >= tap) {", "{", _STRIP, (OUT_OF_BOUNDS, WRONG)),
    Mutant("strip: sums of the output before stay", _DEPTHWISE_FILE,
           "sums[0][i] = sums[1][i] = 0;", "sums[0][i] = 0;", _IMAGES, (WRONG,)),
    Mutant("strip: the column after next", _DEPTHWISE_FILE,
           "first_x + column + 1", "first_x + column + 2", _STRIP, (WRONG,)),
    Mutant("strip: images beyond the grid's rows", _DEPTHWISE_FILE,
           "image += static_cast<int32_t>(gridDim.y)", "image = images", _IMAGES, (WRONG,)),
    Mutant("depthwise: a channel too many is read", _DEPTHWISE_FILE,
           "valid = c.n - channel;", "valid = c.n - channel + 1;", _ANY, (OUT_OF_BOUNDS,)),
    Mutant("depthwise: eights that are not aligned", _DEPTHWISE_FILE,
           "if (is_wide) return", "return", _ANY_AT_1, ("misaligned",)),
    Mutant("depthwise: words of another column", _DEPTHWISE_FILE,
           "column * quads + quad, channel", "column + quad, channel", _ANY, (WRONG,)),
    Mutant("depthwise: channels beyond a block's", _DEPTHWISE_FILE,
           "static_cast<int32_t>(blockIdx.y) << lanes_log2", "0", _ANY_WIDE, (WRONG,)),
    Mutant("depthwise: another layer's kernel", _DEPTHWISE_FILE,
           "(h.kw != c.windows.kw)", "(h.kh == c.windows.kw)", _STRIP, ("trap",)),
    # --- quantize ---
    Mutant("quantize: a vector beyond the end", "quantize.cuh",
           "if (at + 4 <= c.count) {", "if (at < c.count) {", _ROW, (OUT_OF_BOUNDS,)),
    Mutant("quantize: NaN becomes 0", "quantize.cuh",
           "fmaxf(fminf(__fmul_rn(x, c.inverse), c.high), c.low)",
           "fminf(fmaxf(__fmul_rn(x, c.inverse), c.low), c.high)", _ROW, (WRONG,)),
    Mutant("quantize: rounds half up", "quantize.cuh",
           "__fadd_rn(f, 12582912.0f)", "__fadd_rn(floorf(f + 0.5f), 12582912.0f)",
           _ROW, (WRONG,)),
    Mutant("quantize: planes without a barrier", "quantize.cuh",
           "packed;\n    }\n    __syncthreads();", "packed;\n    }", _FEW_PLANES, (RACE,)),
    Mutant("quantize: a channel vector too many", "quantize.cuh",
           "if (16 * vector >= channels) continue;", "if (16 * vector > channels) continue;",
           _PLANES, (WRONG, OUT_OF_BOUNDS, UNINITIALISED)),
    Mutant("quantize: lines of whole banks", "quantize.cuh",
           "tile[kTurnPixels][kTurnWords + 1];", "tile[kTurnPixels][kTurnWords];",
           _PLANES, (CONFLICTS,)),
    *(Mutant(*mistake) for mistake in (*BETWEEN_MISTAKES, *FIRST_MISTAKES, *ROW_MISTAKES)),
)  # fmt: skip
