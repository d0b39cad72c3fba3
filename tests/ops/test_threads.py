"""One thread and two give the same bits."""

from __future__ import annotations

import pytest
import torch

from fastinfer.testing.cases import Conv, cases, conv_case, depthwise_case, linear_case
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
