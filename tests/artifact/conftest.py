"""Converted models for the tests of save and load, each made once."""

from __future__ import annotations

import pytest
import torch
from small_models import make

import fastinfer

_MADE: dict[tuple[str, str], tuple[torch.nn.Module, torch.Tensor, torch.Tensor]] = {}


@pytest.fixture(autouse=True)
def one_thread(threads):
    threads(1)
    with torch.no_grad():
        yield


@pytest.fixture
def converted():
    """Return a function from names of a small model and a preset to (fast, example, other)."""

    def get(name, config="int8"):
        if (name, config) not in _MADE:
            model, x, other = make(name)
            _MADE[name, config] = fastinfer.convert(model, x, config=config), x, other
        return _MADE[name, config]

    return get
