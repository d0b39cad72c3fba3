"""Which ops Triton serves: those with a launcher and without a CUDA kernel, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fastinfer import runtime
from fastinfer.ops.catalog import OPS
from fastinfer.ops.register import bind_triton
from fastinfer.ops.spec import OpSpec

ROOT = Path(__file__).resolve().parents[2]


def spec(name, triton=None):
    return OpSpec(name, "(Tensor x) -> Tensor", torch.empty_like, torch.clone, triton)


def test_only_what_has_no_kernel_is_bound():
    library = torch.library.Library("fastinfer", "FRAGMENT")
    names = ("bound_by_a_test", "kernel_of_a_test", "plain_of_a_test")
    for name in names:
        library.define(f"{name}(Tensor x) -> Tensor")
    ops = (spec(names[0], torch.neg), spec(names[1], torch.neg), spec(names[2]))
    owner, bound = bind_triton(ops, lambda name: name == "fastinfer::kernel_of_a_test")
    assert bound == ("bound_by_a_test",)
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    assert [has(f"fastinfer::{n}", "CUDA") for n in names] == [True, False, False]
    del owner


def test_the_table_says_who_serves():
    launchers = {op.name for op in OPS if op.triton is not None}
    assert launchers >= {"quantize_dynamic", "int8_linear"}
    table = runtime.show_ops()
    assert {name for name, by in table.items() if by["CUDA"] == "triton"} == set(runtime.TRITON_OPS)
    assert set(runtime.TRITON_OPS) <= launchers
    assert all(by["CPU"] in ("kernel", "reference") for by in table.values())


PROGRAM = """
import sys
{before}
import torch, fastinfer
assert "triton" not in sys.modules or sys.modules["triton"] is None
q, scale, zero_point = torch.ops.fastinfer.quantize_dynamic(torch.ones(2, 3), True)
assert q.tolist() == [[255] * 3] * 2
print(*fastinfer.runtime.TRITON_OPS)
"""


@pytest.mark.parametrize("before", ["", 'sys.modules["triton"] = None'], ids=["", "no triton"])
def test_triton_is_not_imported(before):
    """Neither needed nor loaded: torch itself looks for it, and may find none."""
    if before:
        before += "\nimport importlib.util as u; old = u.find_spec"
        before += "\nu.find_spec = lambda n, *a: None if n == 'triton' else old(n, *a)"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(before=before)],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == (set() if before else set(runtime.TRITON_OPS))
