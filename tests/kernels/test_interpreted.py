"""The tests of this folder's kernels under Triton's interpreter, on CPU tensors.

In a process of its own: what is compiled or interpreted is decided when Triton is imported, and an
access out of bounds ends the process.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent


def without_float8(said: str) -> str:
    """Return pytest's lines but those of what this interpreter is known to round wrongly."""
    return "\n".join(line for line in said.splitlines() if "float8 rounding:" not in line)


@pytest.mark.parametrize(
    "name", ["test_row_kernels.py", "test_products.py", "test_fp8.py", "test_bound.py"]
)
def test_under_the_interpreter(name):
    pytest.importorskip("triton", reason="Triton is missing: the Triton kernels are not run")
    # The same files run compiled there, and Triton 3.6's interpreter fails with numpy 2.4.
    if torch.cuda.is_available():
        pytest.skip("a GPU runs these natively")
    command = [sys.executable, "-m", "pytest", "-rs", "--tb=short", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, str(HERE / name)],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "SKIPPED" not in without_float8(done.stdout), done.stdout[-1000:]
