"""The tasks are part of bench, whose files import each other by their own names."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))


@pytest.fixture
def task_cache(tmp_path, monkeypatch):
    """Keep what a test caches out of the folder that benchmarks use."""
    monkeypatch.setenv("FASTINFER_TASKS_CACHE", str(tmp_path))
    return tmp_path
