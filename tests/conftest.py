"""Shared by every test; being here also puts this folder on the path, for `layer_graph`."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch

from fastinfer import runtime

if find_spec("hypothesis") is not None:  # a GPU machine's Python may lack it; tests/cuda need none
    import hypothesis

    # No test is about time: on a busy machine any example may take long.
    hypothesis.settings.register_profile("fastinfer", deadline=None)
    hypothesis.settings.load_profile("fastinfer")


@pytest.fixture
def every_isa():
    """Return the instruction sets of this CPU; the one in force is restored afterwards."""
    before = runtime.isa()
    yield runtime.supported_isas()
    runtime.set_isa(before)


@pytest.fixture(params=runtime.supported_isas())
def isa(request):
    """Put each instruction set of this CPU in force, and return its name."""
    before = runtime.isa()
    runtime.set_isa(request.param)
    yield request.param
    runtime.set_isa(before)


@pytest.fixture
def threads():
    """Return torch.set_num_threads; the count is restored afterwards."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _one_thread_for_small_models(request):
    """On a busy machine, threads of small models wait longer than they compute."""
    if request.path.parent.name not in {
        "bench_tasks",
        "graph",
        "passes",
        "compress",
        "prune",
        "nn",
        "lower",
        "paths",
        "ptx",
    }:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
