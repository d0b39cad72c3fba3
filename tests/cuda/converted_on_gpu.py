"""Models converted on the GPU once for all tests, and the CPU's answers by the same integers."""

from __future__ import annotations

import copy
import functools

import pytest
from cuda_models import example, make

import fastinfer
from fastinfer.config import Config

#: All that can be int8 is, so that no float operator has a part in the answer.
WHOLE = Config("int8", min_sqnr_db=-1000.0)


def model_of(name):
    if name in ("resnet18", "mobilenet_v2"):
        pytest.importorskip("torchvision")
    return make(name)


@functools.cache
def _converted(name):
    return fastinfer.convert(make(name).cuda(), example(name).cuda(), config=WHOLE)


def converted(name):
    """Return a copy of a model that is converted once: its graphs are its own."""
    model_of(name)
    return copy.deepcopy(_converted(name))


@functools.cache
def _on_cpu(name):
    return copy.deepcopy(_converted(name)).cpu()


def wanted(name, x):
    """Return the CPU's answer by the same integers."""
    return _on_cpu(name)(x.cpu())


def assert_replayed(fast, calls=1):
    assert not fast._graphs.refusal
    assert len(fast._graphs) == calls
