"""FASTINFER_CPU_ISA: the instruction set a process starts with, or a clear error."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastinfer import runtime

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = """
import torch, fastinfer
packed = torch.ops.fastinfer.int8_prepack(
    "linear", torch.ones(3, 5, dtype=torch.int8), torch.zeros(3, dtype=torch.int32),
    torch.ones(3), None, None, None, 1, 0, 0, 0, 255, float("-inf"), float("inf"), False)
print(fastinfer.isa(), fastinfer.info()["isa"])
# An error when the weight was packed before the variable took effect.
torch.ops.fastinfer.int8_linear(torch.ones(1, 5, dtype=torch.uint8), packed, None, 3, False)
fastinfer.set_isa(fastinfer.supported_isas()[-1])
print(fastinfer.isa())
"""


def start(program, isa):
    """Return the finished process of a program with FASTINFER_CPU_ISA=isa."""
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), runtime.ISA_VARIABLE: isa},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("isa", ["scalar", " scalar ", ""])
def test_a_process_starts_with_it(isa):
    best = runtime.supported_isas()[-1]
    done = start(PROGRAM, isa)
    assert done.returncode == 0, done.stderr
    first = isa.strip() or best
    assert done.stdout.split() == [first, first, best]


def test_a_wrong_one_is_named():
    program = """
import torch, fastinfer
print(fastinfer.info()["isa"])
for call in (fastinfer.isa, lambda: fastinfer.convert(torch.nn.Linear(3, 3))):
    try:
        call()
    except ValueError as error:
        print(error)
"""
    done = start(program, "AVX9")
    assert done.returncode == 0, done.stderr
    info, isa, convert = done.stdout.splitlines()
    assert info == isa == convert
    supported = ", ".join(runtime.supported_isas())
    assert isa == (
        f"FASTINFER_CPU_ISA: expected an instruction set of this CPU ({supported}), got 'AVX9'; "
        "set one of these, or unset it for the best"
    )


def test_one_this_cpu_lacks():
    assert runtime._isa_error("avx2", ["scalar", "avx2"]) is None
    assert runtime._isa_error("", ["scalar"]) is None
    error = runtime._isa_error("avx512vnni", ["scalar", "avx2"])
    assert "(scalar, avx2), got 'avx512vnni'" in error
