"""For every test of this folder."""

from __future__ import annotations

import pytest
import torch

from fastinfer.tune import whole


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


@pytest.fixture(autouse=True)
def short_timings(monkeypatch):
    """Measure for a moment: nothing here hangs on which is faster."""
    time_interleaved = whole.time_interleaved

    def short(functions, **options):
        return time_interleaved(functions, **options | {"min_time_s": 0.01})

    monkeypatch.setattr(whole, "time_interleaved", short)
