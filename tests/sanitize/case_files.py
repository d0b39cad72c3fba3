"""Programs, weights, inputs and right answers as a file that case_file.h reads."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastinfer import runtime
from fastinfer.ops.int8_region import int8_region_ref
from fastinfer.testing.case import Case, generator, random_uint8
from fastinfer.testing.cases import OUTPUTS, pack, random_weight
from fastinfer.testing.cases_islands import island_programs
from fastinfer.testing.cases_region import region_cases
from fastinfer.testing.cases_text import text_programs
from fastinfer.testing.cases_views import view_case
from fastinfer.types.region import Region, Step

_ISAS = {"scalar": 1, "avx2": 2, "avx512": 3, "avx512vnni": 4, "amx": 5}
_ONE = (1, 1)
#: Not those of single elements, which have NaN, whose bits nothing says; of the large ones one, in
#: which threads share steps.
_ISLANDS = {
    f"island_{label}"
    for label in (
        "views_1x4x4x6", "views_2x8x6x10", "sums_1x4x3x3", "sums_2x24x5x7_nhwc", "sums_1x64x12x13",
    )
}  # fmt: skip
_TEXTS = {"encoder_2x33x32_padding", "encoder_3x70x64_causal", "rows_2x3x4x19_21", "order_2x30"}


def slices_case(n: int, size: int) -> Case:
    """Return a batch whose values need so much memory that it runs in slices."""
    label = f"slices_{n}x{size}"
    steps = (
        Step("int8_max_pool2d", 1, (0,), ((3, 3), _ONE, _ONE, _ONE, False)),
        Step("int8_conv2d", 2, (1,), (0, 8, _ONE, _ONE, (0, 0), _ONE, 1, False)),
        Step("int8_add", 3, (2, 1), (0.5, 117, 0.7, 3, 11, 0, 200, -1)),
        Step("int8_cat", 4, (3, 1), (1, (1.0, 0.3), (11, 7), 11)),
        Step("int8_adaptive_avg_pool2d", 5, (4,), ((2, 2), 1.1, 7, 9, 0, 250)),
    )

    def build() -> tuple[Any, ...]:
        g = generator(label)
        packed = [pack("conv2d", random_weight(g, "normal", 8, 8, 1, 1), g, OUTPUTS[0], 1, 120)]
        x = random_uint8(g, n, 8, size, size).contiguous(memory_format=torch.channels_last)
        return [x], packed, Region(1, 6, (5,), steps).to_text()

    return Case("int8_region", label, build)


def winograd_case() -> Case:
    """Return two layers of 3 x 3 that run by Winograd's algorithm where the ISA has it."""
    steps = (
        Step("int8_conv2d", 1, (0,), (0, 64, (3, 3), _ONE, _ONE, _ONE, 1, False)),
        Step("int8_conv2d", 2, (1,), (1, 48, (3, 3), _ONE, (2, 2), (2, 2), 1, False)),
    )

    def build() -> tuple[Any, ...]:
        g = generator("winograd")
        weights = [random_weight(g, "normal", n, 64, 3, 3) for n in (64, 48)]
        packed = [pack("conv2d", w, g, OUTPUTS[0], 1, 117) for w in weights]
        x = random_uint8(g, 1, 64, 24, 16).contiguous(memory_format=torch.channels_last)
        return [x], packed, Region(1, 3, (2,), steps).to_text()

    return Case("int8_region", "winograd", build)


def cases() -> Iterator[Case]:
    """Yield the cases of int8_region, and batches of one, two and three rounds of slices."""
    yield from region_cases()
    yield from (case for case in island_programs() if case.label in _ISLANDS)
    yield from (case for case in text_programs() if case.label in _TEXTS)
    yield winograd_case()
    yield view_case("residuals", 64, 2, 30, 28)
    # On 4 threads three samples of more than a slice are shared by all; six are slices and a rest.
    for n, size in ((3, 170), (6, 110), (5, 200)):
        yield slices_case(n, size)


def write(path: Path, isa: str) -> int:
    """Write the cases for an ISA this CPU has and return how many there are.

    All numbers are int64: how many cases, then for each the label, the program, how many buffers
    and each, how many inputs and each as dtype (0 uint8, 1 float32), whether NCHW, shape and bytes,
    how many outputs and the bytes of each. Lists start with their length.
    """
    before = runtime.isa()
    runtime.set_isa(isa)
    try:
        written = [_case(case) for case in cases()]
    finally:
        runtime.set_isa(before)
    path.write_bytes(_numbers(_ISAS[isa], len(written)) + b"".join(written))
    return len(written)


def _case(case: Case) -> bytes:
    inputs, packed, program = case.build()
    wanted = int8_region_ref(inputs, packed, program)
    parts = [_list(case.label.encode()), _list(program.encode()), _numbers(len(packed))]
    parts += [_list(_memory(t)) for t in packed]
    parts.append(_numbers(len(inputs)))
    for x in inputs:
        is_float = x.dtype == torch.float32
        parts += [_numbers(is_float, _is_planar(x), x.dim(), *x.shape), _list(_memory(x))]
    parts.append(_numbers(len(wanted)))
    parts += [_list(_memory(t)) for t in wanted]
    return b"".join(parts)


def _is_planar(x: Tensor) -> bool:
    """Return True for a float image in NCHW memory, which the engine takes and answers as it is."""
    is_nhwc = x.is_contiguous(memory_format=torch.channels_last)
    return x.dtype == torch.float32 and x.dim() == 4 and not is_nhwc


def _memory(t: Tensor) -> bytes:
    """Return the elements in the order of an engine's value: images NHWC but for planar ones."""
    t = t.permute(0, 2, 3, 1) if t.dim() == 4 and not _is_planar(t) else t
    return t.contiguous().numpy().tobytes()


def _numbers(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}q", *numbers)


def _list(data: bytes) -> bytes:
    return _numbers(len(data)) + data
