"""Bytes: what a model holds, and what one call allocates at its highest point."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile


def model_bytes(model: object) -> int:
    """Return the bytes of a module's parameters and buffers, tensors it shares counted once."""
    if not isinstance(model, nn.Module):
        return 0
    state = model.state_dict(keep_vars=True).values()
    unique = {id(t): t for t in state if isinstance(t, torch.Tensor)}
    return sum(t.numel() * t.element_size() for t in unique.values())


def peak_bytes(function: Callable[[], object]) -> int | None:
    """Return the most bytes that torch's allocators held for one call, beyond what was there.

    Memory that a kernel takes from elsewhere (its own scratch) does not show. None when this
    build of torch cannot record allocations.
    """
    if torch.cuda.is_initialized():
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        function()
        on_gpu = torch.cuda.max_memory_allocated() - before
        if on_gpu > 0:
            return on_gpu
    with (
        _quiet_profiler(),
        profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded,
    ):
        function()
    results = getattr(recorded.profiler, "kineto_results", None)
    if results is None:
        return None
    held = highest = 0
    allocations = [e for e in results.events() if e.name() == "[memory]"]
    for event in sorted(allocations, key=lambda e: e.start_ns()):
        held += event.nbytes()
        highest = max(highest, held)
    return highest


@contextmanager
def _quiet_profiler() -> Iterator[None]:
    """Keep the profiler from printing that it found no GPU; it reads the level when it starts."""
    name = "KINETO_LOG_LEVEL"
    before = os.environ.get(name)
    os.environ.setdefault(name, "99")
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)
