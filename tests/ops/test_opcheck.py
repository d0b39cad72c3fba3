"""torch.library.opcheck for every op: schema, autograd, fake tensors, dynamic shapes."""

from __future__ import annotations

import pytest
import torch

from fastinfer.ops.catalog import OPS
from fastinfer.testing.case import generator
from fastinfer.testing.cases import random_weight
from fastinfer.testing.every_case import every_case

PER_OP = 2
CHECKS = (
    "test_schema",
    "test_autograd_registration",
    "test_faketensor",
    "test_aot_dispatch_dynamic",
)
#: The size of these results is in the bytes of an argument, which a fake tensor does not have.
UNKNOWN_SIZE = {"int8_prepack", "int8_unpack"}


def spread(found):
    """Return PER_OP cases with elements, from both ends of the list."""
    found = [c for c in found if all(t.numel() for t in tensors(c.build()))]
    return [found[0], found[-1]][:PER_OP]


def tensors(args):
    flat = [item for a in args for item in (a if isinstance(a, (list, tuple)) else [a])]
    return [a for a in flat if isinstance(a, torch.Tensor)]


def chosen():
    by_op = {}
    for case in every_case():
        by_op.setdefault(case.op, []).append(case)
    return [case for found in by_op.values() for case in spread(found)]


CHOSEN = chosen()


def check(op, args):
    tests = CHECKS[:2] if op in UNKNOWN_SIZE else CHECKS
    overload = getattr(torch.ops.fastinfer, op).default
    results = torch.library.opcheck(overload, args, test_utils=tests)
    assert set(results.values()) == {"SUCCESS"}, results


def test_every_op_is_checked():
    assert {c.op for c in CHOSEN} | {"int8_prepack"} == {op.name for op in OPS}


@pytest.mark.parametrize("case", CHOSEN, ids=str)
def test_opcheck(case):
    check(case.op, case.build())


@pytest.mark.parametrize("op", ["linear", "depthwise_conv2d"])
def test_opcheck_prepack(op):
    g = generator(op)
    shape = (6, 10) if op == "linear" else (6, 1, 3, 3)
    weight = random_weight(g, "normal", *shape)
    bias, multiplier = torch.zeros(6, dtype=torch.int32), torch.rand(6, generator=g)
    groups = 1 if op == "linear" else 6
    check("int8_prepack", (op, weight, bias, multiplier, None, None, None, groups, 3, 4, 0, 255,
                           0.0, 1.0, False))  # fmt: skip
