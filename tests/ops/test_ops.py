"""Every op of the catalog, every case, every ISA this CPU has: equal to the reference."""

from __future__ import annotations

import pytest
import torch

from fastinfer.ops.catalog import OPS
from fastinfer.testing.compare import assert_equal
from fastinfer.testing.every_case import every_case
from fastinfer.types.packed import FLAG_UNBOUNDED, FORMS, few_rows_image, read_header

CASES = every_case()
SPECS = {op.name: op for op in OPS}
# These are plain PyTorch on every device.
REFERENCE_ONLY = {"int8_unpack"}


#: (form, panel width) of every family of csrc/cpu/isa; docs/layouts.md.
FAMILIES = {
    "scalar": {("rows", 8)},
    "avx2": {("words", 16), ("words", 8), ("pairs", 8)},
    "avx512": {("words", 32), ("pairs", 16)},
    "avx512vnni": {
        ("rows", 32),
        ("rows", 16),
        ("groups", 16),
        ("sparse", 32),
        ("sparse", 16),
    },
    "amx": {("tiles", 32), ("tiles", 16), ("sparse", 32), ("sparse", 16)},
}


def test_cases_reach_every_family(isa):
    found = set()
    for case in CASES:
        if case.op in ("int8_linear", "int8_conv2d"):
            header = read_header(case.build()[1])
            found.add((FORMS[header.form], header.nr))
    assert found == FAMILIES[isa]


def test_cases_reach_images_for_few_rows(isa):
    """Ones of either width, with fewer rows than they are for, as many, and more."""
    found, sides = set(), set()
    for case in CASES:
        if case.op in ("int8_linear", "int8_linear_dynamic"):
            x, packed = case.build()[:2]
            image = few_rows_image(packed)
            if image is None:
                continue
            most, m = read_header(packed).pixels, x.numel() // x.shape[-1]
            found.add((FORMS[read_header(image).form], read_header(image).nr))
            sides.add((case.op, (m > most) - (m < most)))
    if isa != "amx":
        assert not found
        return
    assert found == {("sparse", 32), ("sparse", 16)}
    assert sides >= {("int8_linear", side) for side in (-1, 0, 1)}
    assert sides >= {("int8_linear_dynamic", side) for side in (-1, 1)}


def test_unbounded_is_where_multipliers_are_large(isa):
    for case in CASES:
        if case.op in ("int8_linear", "int8_conv2d", "int8_depthwise_conv2d"):
            header = read_header(case.build()[1])
            assert header.has(FLAG_UNBOUNDED) == ("unbounded" in case.label), case


def results(value):
    return list(value) if isinstance(value, (tuple, list)) else [value]


@pytest.mark.parametrize("name", sorted(SPECS))
def test_every_op_has_a_kernel(name):
    has = torch._C._dispatch_has_kernel_for_dispatch_key(f"fastinfer::{name}", "CPU")
    assert has or name in REFERENCE_ONLY, f"{name} has no CPU kernel"


def test_every_op_has_cases():
    assert {case.op for case in CASES} == set(SPECS) - {"int8_prepack"}
    assert len({str(case) for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_reference(case, isa):
    args = case.build()
    before = [a.clone() if isinstance(a, torch.Tensor) else a for a in args]
    value = getattr(torch.ops.fastinfer, case.op)(*args)
    reference = SPECS[case.op].reference(*args)
    for v, r in zip(results(value), results(reference), strict=True):
        assert_equal(v, r)
        assert v.stride() == r.stride() or v.numel() == 0
    for a, b in zip(args, before, strict=True):
        if isinstance(a, torch.Tensor):
            assert_equal(a, b)


# int8_unpack has no shape rule: its shapes are in the buffer.
@pytest.mark.parametrize("case", [c for c in CASES if c.op != "int8_unpack"], ids=str)
def test_fake_matches(case):
    args = case.build()
    value = getattr(torch.ops.fastinfer, case.op)(*args)
    fake = SPECS[case.op].fake(*args)
    for v, f in zip(results(value), results(fake), strict=True):
        assert v.shape == f.shape and v.dtype == f.dtype
        assert v.numel() == 0 or v.stride() == f.stride()
