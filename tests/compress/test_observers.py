"""Observers: what a range is, per tensor and per channel, over several batches."""

from __future__ import annotations

import pytest
import torch

from fastinfer.compress.quantize.observers import (
    Histogram,
    MovingAverage,
    Percentile,
    make_observer,
)
from fastinfer.testing.compare import assert_equal
from fastinfer.types.quant import OBSERVERS


def batches(count=3, shape=(4, 5, 6), seed=0):
    g = torch.Generator().manual_seed(seed)
    scale = torch.arange(1, shape[1] + 1).view(1, -1, *[1] * (len(shape) - 2))
    return [torch.randn(shape, generator=g) * scale for _ in range(count)]


def observed(name, data, axis=None):
    observer = make_observer(name, axis)
    for x in data:
        observer.observe(x)
    return observer.range()


def test_names():
    with pytest.raises(ValueError, match=r"expected one of .*entropy.*got 'max'"):
        make_observer("max")
    with pytest.raises(ValueError, match="percentile"):
        Percentile(percentile=10.0)


@pytest.mark.parametrize("name", OBSERVERS)
def test_no_batch(name):
    observer = make_observer(name)
    with pytest.raises(ValueError, match="at least one batch"):
        observer.range()
    observer.observe(torch.empty(0, 3))
    with pytest.raises(ValueError, match="at least one batch"):
        observer.range()


def test_min_max():
    data = batches()
    lo, hi = observed("minmax", data)
    everything = torch.stack(data)
    assert_equal(lo, everything.min().double().reshape(1))
    assert_equal(hi, everything.max().double().reshape(1))
    lo, hi = observed("minmax", data, 1)
    rows = everything.movedim(2, 0).reshape(5, -1)
    assert_equal(lo, rows.amin(1).double())
    assert_equal(hi, rows.amax(1).double())
    assert_equal(observed("minmax", data, -2)[0], lo)


def test_moving_average():
    observer = MovingAverage(momentum=0.75)
    for value in (1.0, 5.0):
        observer.observe(torch.tensor([-value, value]))
    assert [float(v) for v in observer.range()] == [-2.0, 2.0]


@pytest.mark.parametrize("name", OBSERVERS)
@pytest.mark.parametrize("axis", [None, 1])
def test_range_is_inside_what_was_seen(name, axis):
    data = batches()
    lo, hi = observed(name, data, axis)
    least, most = observed("minmax", data, axis)
    slack = (most - least) * 1e-6
    assert lo.shape == hi.shape == ((1,) if axis is None else (5,)) and lo.dtype == torch.float64
    assert bool((lo >= least - slack).all() and (hi <= most + slack).all() and (lo < hi).all())
    again = observed(name, data, axis)
    assert_equal(again[0], lo)
    assert_equal(again[1], hi)


@pytest.mark.parametrize("name", ["percentile", "mse", "entropy"])
def test_outliers_are_clipped(name):
    g = torch.Generator().manual_seed(3)
    x = torch.randn(200_000, generator=g)
    x[:2] = torch.tensor([-300.0, 300.0])
    lo, hi = observed(name, [x])
    assert float(hi) < 270 and float(lo) > -270
    assert float(hi) > 2 and float(lo) < -2


@pytest.mark.parametrize("name", OBSERVERS)
def test_constant_and_zero_tensors(name):
    for value in (0.0, 2.5, -2.5):
        lo, hi = observed(name, [torch.full((3, 4), value)])
        assert bool(torch.isfinite(lo).all() and torch.isfinite(hi).all())
        assert float(lo) <= value + 1e-5 and float(hi) >= value - 1e-5


def test_histogram_keeps_every_value():
    histogram = Histogram(1)
    data = [x * factor for x, factor in zip(batches(4), (1.0, 20.0, 0.1, 3.0), strict=True)]
    for x in data:
        histogram.observe(x)
    counts = histogram.checked_counts()
    assert counts.sum(1).tolist() == [sum(x.numel() for x in data) / 5] * 5
