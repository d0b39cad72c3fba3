"""Mistakes in the kernels of the ops between layers that the interpreter must find."""

from __future__ import annotations

from interpreter.faults import OUT_OF_BOUNDS, RACE, UNINITIALISED
from ptx_cases_between import BETWEEN_LAUNCHES, Between

WRONG, CONFLICTS = "wrong result", "bank conflicts"

#: (name, file of csrc/cuda, what is replaced, by what, launch, what shows it).
Mistake = tuple[str, str, str, str, Between, tuple[str, ...]]

#: Kernel of each launch here, as it is instantiated.
KERNELS: dict[Between, str] = {}


def _launch(name: str, kernel: str) -> Between:
    launch = next(launch for launch in BETWEEN_LAUNCHES if str(launch) == name)
    KERNELS[launch] = kernel
    return launch


def header_and_kernel(launch: Between) -> tuple[str, str]:
    """Return the file of a launch's kernel, and the kernel's instantiation."""
    kernel = KERNELS[launch]
    return _HEADERS[kernel.partition("<")[0]], kernel


_HEADERS = {
    "int8_pair": "pointwise.cuh",
    "int8_cat": "pointwise.cuh",
    "int8_average": "pool.cuh",
    "int8_split_average": "pool.cuh",
}
_PAIR = "int8_pair<{}>(const __grid_constant__ PairCall, bool)"
_SPLIT = "int8_split_average<16>(const __grid_constant__ AverageCall, int32_t)"
_ADD = _launch("int8_add-4161_nchw_nchw_plain_behind", _PAIR.format("false, 0"))
_GATE = _launch("int8_mul-2x24x3x5_nhwc_nhwc_y2x24x1x1_plain_behind", _PAIR.format("true, 8"))
_WHOLE = _launch("int8_adaptive_avg_pool2d-whole32_1.1_plain_split1_behind", _SPLIT)
_SHARED = _launch("int8_adaptive_avg_pool2d-whole32_1.1_plain_split3_behind", _SPLIT)
_AVERAGE = _launch(
    "int8_avg_pool2d-2x48_9.8_3.3_2.2_1.1_1.1_True_nhwc_plain_behind",
    "int8_average<16>(const __grid_constant__ AverageCall, uint32_t)",
)
_CAT = _launch(
    "int8_cat-nhwc_3_32_behind", "int8_cat<16>(const __grid_constant__ CatCall, uint32_t, uint32_t)"
)

BETWEEN_MISTAKES: tuple[Mistake, ...] = (
    ("pair: a vector beyond the end", "pointwise.cuh",
     "const bool is_whole = is_wide && valid == kPointwiseBytes;\n  const Piece x",
     "const bool is_whole = is_wide;\n  const Piece x", _ADD, (OUT_OF_BOUNDS,)),
    ("pair: channels of the image before", "pointwise.cuh",
     "    pixel = 0;\n    image++;", "    pixel = 0;", _GATE, (WRONG,)),
    ("cat: the part before", "pointwise.cuh",
     "column >= c.parts[part + 1].column", "column > c.parts[part + 1].column", _CAT,
     (WRONG, OUT_OF_BOUNDS)),
    ("average: a pixel too many", "pool.cuh",
     "x < w.last; x++", "x <= w.last; x++", _AVERAGE, (WRONG, OUT_OF_BOUNDS)),
    ("average: parts before they are there", "pool.cuh",
     "parts[i][thread] = sums[i];\n  __syncthreads();", "parts[i][thread] = sums[i];", _WHOLE,
     (RACE, UNINITIALISED)),
    ("average: totals before they are there", "pool.cuh",
     "totals[thread] = total;\n  __syncthreads();", "totals[thread] = total;", _WHOLE,
     (RACE, UNINITIALISED)),
    ("average: a line too few", "pool.cuh",
     "at = sharer; at < lines", "at = sharer + 1; at < lines", _WHOLE, (WRONG,)),
    ("average: parts of whole banks", "pool.cuh",
     "parts[kBytes][kPoolThreads + 2];", "parts[kBytes][kPoolThreads];", _WHOLE, (CONFLICTS,)),
    ("average: a share twice", "pool.cuh",
     "int64_t{split} * pixels / splits", "int64_t{split} * pixels / (splits + 1)", _SHARED,
     (WRONG,)),
)  # fmt: skip
