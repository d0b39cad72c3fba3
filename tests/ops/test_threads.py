"""One thread and two give the same bits."""

from __future__ import annotations

import pytest
import torch

from fastinfer.ops.catalog import OPS
from fastinfer.testing.cases import OUTPUTS, Conv, cases, conv_case, depthwise_case, linear_case
from fastinfer.testing.cases_between import between_cases
from fastinfer.testing.cases_depthwise import depthwise_cases
from fastinfer.testing.compare import assert_equal


def tensors(args):
    """Return the tensors among arguments, also those of a list."""
    flat = [a for arg in args for a in (arg if isinstance(arg, list) else [arg])]
    return [a for a in flat if isinstance(a, torch.Tensor)]


#: Large enough to be split, with rests that no number of threads divides.
LARGE = [
    linear_case((301,), 130, 96),
    linear_case((1,), 2050, 512),
    linear_case((1,), 2050, 512, weights="shared few"),  # with AMX, on a sparse image
    linear_case((10,), 2050, 512, weights="shared few"),
    conv_case(Conv(2, 32, (29, 27), 72)),
    conv_case(Conv(3, 64, (15, 15), 33, kernel=(1, 1), padding=(0, 0))),
    depthwise_case(Conv(3, 70, (31, 29), 70, groups=70)),
    depthwise_case(Conv(3, 70, (61, 59), 70, groups=70, stride=(2, 2))),
]
DYNAMIC = [
    c for c in [*cases(), *depthwise_cases()] if c.op.endswith("_dynamic") or c.op == "quantize"
]
BETWEEN = [c for c in between_cases() if sum(t.numel() for t in tensors(c.build())) > 20000]

POINTWISE = {"kernel": (1, 1), "padding": (0, 0)}
#: Rows that a thread takes in two halves for each line of cache of the results, where a neighbour
#: has the next ones: panels that share the last line and ones that do not, groups, several blocks,
#: zeros.
HALVED = [
    linear_case((603,), 203, 300),
    linear_case((150,), 203, 1024, OUTPUTS[1]),
    linear_case((150,), 256, 1024, OUTPUTS[4]),
    linear_case((1500,), 136, 72, OUTPUTS[3]),
    linear_case((301,), 168, 768, weights="shared"),
    conv_case(Conv(2, 48, (21, 19), 200, **POINTWISE)),
    conv_case(Conv(1, 192, (31, 30), 176, groups=2, **POINTWISE)),
    conv_case(Conv(1, 64, (41, 40), 80, stride=(2, 2), **POINTWISE)),
]


@pytest.mark.parametrize("case", [*LARGE, *DYNAMIC, *BETWEEN], ids=str)
def test_threads(case, threads):
    args = case.build()
    results = []
    for count in (1, 2):
        threads(count)
        value = getattr(torch.ops.fastinfer, case.op)(*args)
        results.append(value if isinstance(value, tuple) else (value,))
    for one, two in zip(*results, strict=True):
        assert_equal(two, one)


@pytest.mark.parametrize("case", HALVED, ids=str)
def test_rows_in_halves(case, isa, threads):
    args = case.build()
    wanted = next(op for op in OPS if op.name == case.op).reference(*args)
    for count in (1, 2, 3):
        threads(count)
        assert_equal(getattr(torch.ops.fastinfer, case.op)(*args), wanted)
