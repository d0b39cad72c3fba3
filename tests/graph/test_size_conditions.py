"""The sizes a captured graph takes are those that torch.export's own guards let through."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from small_models import make
from torch import nn

from fastinfer.graph import domain
from fastinfer.graph.capture import capture
from fastinfer.types.size_guard import SizeGuard


class Pooled(nn.Module):
    """Sizes through strides, pooling in ceil mode and a comparison."""

    def forward(self, x):
        y = F.max_pool2d(F.avg_pool2d(x, 3, 2), 2, 2, ceil_mode=True)
        return y * 2 if x.shape[2] > x.shape[3] else y


class Paired(nn.Module):
    """Two inputs whose sizes depend on each other."""

    def forward(self, x, y):
        return torch.cat([x, y[:, : x.shape[1]]], 1) @ torch.ones(2 * 6, 1)


@pytest.fixture
def both(monkeypatch):
    """Return a function that captures and gives our guard and torch's own."""

    def run(model, *args):
        monkeypatch.setattr(domain, "size_guard", lambda placeholders, inputs: None)
        torchs = capture(model, args).call
        monkeypatch.undo()
        return capture(model, args).call, torchs

    return run


@pytest.mark.parametrize("name", ["residual", "shuffled", "separable"])
def test_images(both, name):
    model, x, _ = make(name)
    ours, torchs = both(model, x)
    compare(ours, torchs, [[(b, 3, h, w)] for b in (1, 3) for h, w in SIZES])


SIZES = list(itertools.product((1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 31), (1, 2, 3, 6, 7, 12, 16)))


def test_pooling(both):
    ours, torchs = both(Pooled().eval(), torch.randn(2, 3, 20, 17))
    assert ours.guard.conditions
    compare(ours, torchs, [[(2, 3, h, w)] for h, w in SIZES])
    assert ours.accepts([(2, 3, 16, 12)]) and not ours.accepts([(2, 3, 9, 16)])


def test_two_inputs(both):
    ours, torchs = both(Paired().eval(), torch.randn(3, 6), torch.randn(3, 9))
    compare(ours, torchs, [[(a, 6), (b, c)] for a in (1, 3, 5) for b in (1, 3) for c in (6, 9)])


def compare(ours, torchs, calls):
    assert isinstance(ours.guard, SizeGuard) and not isinstance(torchs.guard, SizeGuard)
    assert [ours.accepts(shapes) for shapes in calls] == [torchs.accepts(s) for s in calls]
