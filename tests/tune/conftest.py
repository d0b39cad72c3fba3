"""A timer that says what the test wants, for every test of this folder."""

from __future__ import annotations

import importlib

import pytest
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from fastinfer.graph.layer import Layer
from fastinfer.nn import PackedModule

FLOAT_MS = 2.0


class Timer:
    """Stands for best_ms and race_ms: runs a call once, answers by the outermost module it called.

    fast: out_features -> milliseconds in int8 (1.0 otherwise); border: of a quantize alone.
    """

    def __init__(self, fast=None, border=0.0):
        self.fast, self.border = fast or {}, border
        self.timed: list[nn.Module | None] = []

    def __call__(self, call, limit_s):
        seen = []
        handle = register_module_forward_pre_hook(lambda module, args: seen.append(module))
        try:
            call()
        finally:
            handle.remove()
        self.timed.append(seen[0] if seen else None)
        if not seen:
            return self.border
        if isinstance(seen[0], (Layer, nn.Linear)):
            return FLOAT_MS
        packed = next(m for m in seen if isinstance(m, PackedModule))
        return self.fast.get(packed.out_features, 1.0)

    def race(self, float_call, fast_call, limit_s):
        return self(float_call, limit_s), self(fast_call, limit_s)


@pytest.fixture
def timer(monkeypatch):
    """Return a function that puts a Timer in the place of both and returns it."""

    def install(*args, **kwargs):
        made = Timer(*args, **kwargs)
        choose, modules = (  # the package exports a function called choose
            importlib.import_module(f"fastinfer.tune.{name}") for name in ("choose", "modules")
        )
        monkeypatch.setattr(choose, "best_ms", made)
        for module in (choose, modules):
            monkeypatch.setattr(module, "race_ms", made.race)
        return made

    return install
