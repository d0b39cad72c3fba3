"""Mistakes in the kernels of ops over whole rows that the interpreter must find."""

from __future__ import annotations

from host.runs import Tile
from interpreter import AHEAD
from interpreter.faults import OUT_OF_BOUNDS, RACE, UNINITIALISED
from ptx_cases_rows import ROW_LAUNCHES, Dynamic, FloatRows, Ranges, RowLaunch

WRONG = "wrong result"

#: (name, file of csrc/cuda, what is replaced, by what, launch, what shows it).
Mistake = tuple[str, str, str, str, RowLaunch, tuple[str, ...]]


def header_and_kernel(launch: RowLaunch) -> tuple[str, str | None]:
    """Return the file of a launch's kernel, and the kernel's instantiation if it is a template."""
    if isinstance(launch, Dynamic):
        call = "const __grid_constant__ GemmCall, int32_t, int32_t"
        return "int8_gemm_mma.cuh", f"int8_gemm_mma<64, 64, RowSource::kMatrix>({call})"
    if isinstance(launch, FloatRows):
        kernel = "layer_norm" if launch.case.op == "float_layer_norm" else "softmax"
        call = "NormRows" if kernel == "layer_norm" else "SoftmaxRows"
        return "float_rows.cuh", f"float_{kernel}<4>(const __grid_constant__ {call})"
    if launch.step == "rows":
        kernel = "quantize_each_row<8>(const __grid_constant__ RangeCall, bool)"
        return "quantize_rows.cuh", kernel
    return "quantize_rows.cuh", "quantize_padded<4>(const __grid_constant__ RangeCall)"


def _named(name: str) -> RowLaunch:
    return next(launch for launch in ROW_LAUNCHES if str(launch) == name)


_LONG = Ranges((2, 1030), "rows", order=AHEAD)
_ODD = Ranges((3, 2050), "rows")
_IMAGES = Ranges((3, 16, 5, 6), "codes", 2, (1, 1))
_NORM = _named("float_layer_norm-rows_64_wb_at0")
_SOFTMAX = _named("float_softmax-rows_64_at0")
_PRODUCT = next(
    launch
    for launch in ROW_LAUNCHES
    if isinstance(launch, Dynamic)
    and launch.tile == Tile("mma", 64, 64)
    and launch.case.label == "9x64_n40_True"
)

ROW_MISTAKES: tuple[Mistake, ...] = (
    ("ranges: bounds of other warps before they are there", "quantize_rows.cuh",
     "      __syncthreads();\n      low = ", "      low = ", _LONG, (RACE, UNINITIALISED)),
    ("ranges: a value beyond the row", "quantize_rows.cuh",
     "i < valid ? __ldg(from + i) : 0.0f", "__ldg(from + i)", _ODD, (OUT_OF_BOUNDS,)),
    ("ranges: NaN becomes the least", "codes.cuh",
     "fmaxf(fminf(f[i], r.high), r.low)", "fminf(fmaxf(f[i], r.low), r.high)", _LONG, (WRONG,)),
    ("ranges: the largest of a part of the lanes", "quantize_rows.cuh",
     "for (int apart = 16; apart > 0; apart /= 2) {\n      low",
     "for (int apart = 8; apart > 0; apart /= 2) {\n      low", _LONG, (WRONG,)),
    ("ranges: a border of zeros", "quantize_rows.cuh",
     "codes.words[0] = range.rounding.zero_points;", "codes.words[0] = 0;", _IMAGES, (WRONG,)),
    ("ranges: a column of the border is the image's", "quantize_rows.cuh",
     "static_cast<uint32_t>(x) < static_cast<uint32_t>(c.width)",
     "static_cast<uint32_t>(x) <= static_cast<uint32_t>(c.width)", _IMAGES,
     (WRONG, OUT_OF_BOUNDS)),
    ("norm: sums in another order", "float_rows.cuh",
     "__fadd_rn(__fadd_rn(sums[0], sums[2]), __fadd_rn(sums[1], sums[3]))",
     "__fadd_rn(__fadd_rn(sums[0], sums[1]), __fadd_rn(sums[2], sums[3]))", _NORM, (WRONG,)),
    ("norm: the next row too", "float_rows.cuh",
     "const bool is_row = row < rows;", "const bool is_row = row <= rows;", _NORM,
     (OUT_OF_BOUNDS,)),
    ("norm: a fused square", "float_rows.cuh",
     "__fadd_rn(sums[i], __fmul_rn(away, away))", "__fmaf_rn(away, away, sums[i])", _NORM,
     (WRONG,)),
    ("softmax: a fused polynomial", "float_rows.cuh",
     "p = __fadd_rn(__fmul_rn(p, r), coefficient);", "p = __fmaf_rn(p, r, coefficient);", _SOFTMAX,
     (WRONG,)),
    ("softmax: the largest of half a row", "float_rows.cuh",
     "for (int apart = kLanes / 2; apart > 0; apart /= 2) {\n      most",
     "for (int apart = kLanes / 4; apart > 0; apart /= 2) {\n      most", _SOFTMAX, (WRONG,)),
    ("dynamic: the range of another row", "epilogue.cuh",
     "static_cast<uint32_t>(row) / e.rows_per_range", "0", _PRODUCT, (WRONG,)),
    ("dynamic: the zero point stays", "epilogue.cuh",
     "acc[i] - zero_point * v.bias[i];", "acc[i];", _PRODUCT, (WRONG,)),
    ("dynamic: the bias is scaled too", "epilogue.cuh",
     "__fadd_rn(__fmul_rn(product, row_scale), v.residual_multiplier[i])",
     "__fmul_rn(__fadd_rn(product, v.residual_multiplier[i]), row_scale)", _PRODUCT, (WRONG,)),
)  # fmt: skip
