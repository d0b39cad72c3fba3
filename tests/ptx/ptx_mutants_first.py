"""Mistakes in the kernel of first layers that the interpreter must find."""

from __future__ import annotations

from interpreter.faults import OUT_OF_BOUNDS, RACE, UNINITIALISED
from ptx_cases_first import FIRST_LAUNCHES, First

WRONG = "wrong result"
_FILE = "int8_first_conv.cuh"

#: (name, file of csrc/cuda, what is replaced, by what, launch, what shows it).
Mistake = tuple[str, str, str, str, First, tuple[str, ...]]


def header_and_kernel(launch: First) -> tuple[str, str]:
    """Return the file of a launch's kernel, and the kernel's instantiation."""
    taps = 7 if "_k7." in launch.case.label else 3
    call = "const __grid_constant__ GemmCall, const __grid_constant__ FirstConvConfig"
    return _FILE, f"int8_first_conv<{taps}>({call})"


_SEVEN, _AT_1 = FIRST_LAUNCHES[0], next(f for f in FIRST_LAUNCHES if f.offset == 1)
_MANY = next(f for f in FIRST_LAUNCHES if f.case.label.startswith("5x3x"))
_THREE = next(f for f in FIRST_LAUNCHES if "_k3.3_s2" in f.case.label)

FIRST_MISTAKES: tuple[Mistake, ...] = (
    ("first: pixels before they are there", _FILE,
     "padding, pixels);\n    __syncthreads();", "padding, pixels);", _SEVEN,
     (RACE, UNINITIALISED)),
    ("first: pixels of the next tile too early", _FILE,
     "first_column, sums);\n      }\n    }\n    __syncthreads();",
     "first_column, sums);\n      }\n    }", _MANY, (RACE,)),
    ("first: the kernel's next row twice", _FILE,
     "min(Steps::row(step, half), kTaps - 1)", "min(Steps::row(step, 0), kTaps - 1)", _THREE,
     (WRONG,)),
    ("first: weights of a tap that is not there", _FILE,
     "const bool is_tap = row < Steps::kTaps && column < kw;",
     "const bool is_tap = row < Steps::kTaps;", _SEVEN, (WRONG, OUT_OF_BOUNDS)),
    ("first: the other eight outputs' pixels", _FILE,
     "behind = 8 * w.stride_w;", "behind = 8;", _SEVEN, (WRONG,)),
    ("first: a row of pixels too many", _FILE,
     "static_cast<uint32_t>(y) < static_cast<uint32_t>(w.height)",
     "static_cast<uint32_t>(y) <= static_cast<uint32_t>(w.height)", _SEVEN,
     (WRONG, OUT_OF_BOUNDS)),
    ("first: outputs beyond the row", _FILE,
     "if (x + 8 * half >= w.out_width) continue;", "", _SEVEN, (WRONG, OUT_OF_BOUNDS)),
    ("first: the tile below", _FILE,
     "(line - image * f.tiles_y) * f.rows", "(line - image * f.tiles_y + 1) * f.rows", _AT_1,
     (WRONG,)),
)  # fmt: skip
