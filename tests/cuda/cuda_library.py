"""What the tests of this folder need of the machine; what is missing is the reason of a skip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import fastinfer
from fastinfer import runtime

BUILT = sorted(Path(fastinfer.__file__).parent.glob("_C_cuda*.so"))


def built_library() -> Any:
    """Return fastinfer._C_cuda, whose pure functions need no GPU.

    Skips where it was not built: without nvcc, or with a torch that has no CUDA. One that was built
    and does not load is a failure.
    """
    if runtime._C_cuda is None:
        if torch.version.cuda is None or not BUILT:
            pytest.skip(f"fastinfer._C_cuda: {runtime._CUDA_ERROR}", allow_module_level=True)
        raise AssertionError(f"{BUILT[0].name} was built and does not load: {runtime._CUDA_ERROR}")
    return runtime._C_cuda


def need_gpu(otherwise: str) -> None:
    """Skip a module that runs kernels on a GPU where there is none.

    otherwise: what is not done then. The interpreter runs the kernels without one (tests/ptx).
    """
    if not torch.cuda.is_available():
        pytest.skip(f"no GPU: {otherwise}", allow_module_level=True)
