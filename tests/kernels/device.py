"""Where kernels run: natively on a GPU, or under Triton's interpreter on CPU tensors."""

from __future__ import annotations

import os

import pytest
import torch

pytest.importorskip("triton", reason="Triton is missing: the Triton kernels are not run")

IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if not IS_INTERPRETED and not torch.cuda.is_available():
    pytest.skip("no GPU: test_interpreted.py runs these on the CPU", allow_module_level=True)
DEVICE = "cpu" if IS_INTERPRETED else "cuda"
