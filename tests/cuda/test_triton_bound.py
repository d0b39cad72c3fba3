"""Where CUDA kernels are missing, Triton serves ops of CUDA tensors: equal, and in graphs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cuda_library import need_gpu

need_gpu("ops are not bound to Triton's launchers")
pytest.importorskip("triton", reason="Triton is missing: nothing can be bound to it")

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import sys
sys.modules["fastinfer._C_cuda"] = None  # as if it was not built
import torch, fastinfer
from fastinfer.ops.int8_linear import int8_linear_ref
from fastinfer.ops.quantize import quantize_dynamic_ref
from fastinfer.testing.cases import OUTPUTS, linear_case

served = {name for name, by in fastinfer.show_ops().items() if by["CUDA"] == "triton"}
assert served == {"quantize_dynamic", "int8_linear"}, served
assert fastinfer.info()["cuda_kernels"].startswith("missing"), fastinfer.info()["cuda_kernels"]
x = torch.randn(70, 768, device="cuda")
for per_token in (True, False):
    got = torch.ops.fastinfer.quantize_dynamic(x, per_token)
    want = quantize_dynamic_ref(x.cpu(), per_token)
    assert all(torch.equal(a.cpu(), b) for a, b in zip(got, want))
for output in OUTPUTS:
    x, packed, residual, *more = linear_case((70,), 72, 144, output).build()
    args = [t if t is None else t.cuda() for t in (x, packed, residual)]
    got = torch.ops.fastinfer.int8_linear(*args, *more)
    assert torch.equal(got.cpu(), int8_linear_ref(x, packed, residual, *more)), output
graph = torch.cuda.CUDAGraph()
with torch.cuda.graph(graph):
    again = torch.ops.fastinfer.int8_linear(*args, *more)
again.zero_()
graph.replay()
assert torch.equal(again, got)
print("served")
"""


def test_ops_are_served_by_triton():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=ROOT,
        capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0 and done.stdout.split() == ["served"], done.stderr[-3000:]
