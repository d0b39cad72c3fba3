"""A large batch runs in slices: the same bits as its samples alone, at any number of threads."""

from __future__ import annotations

import threading

import pytest
import torch
from one_region import regions_of
from torch import nn

import fastinfer
from fastinfer import runtime
from fastinfer.testing.compare import assert_equal


class Net(nn.Module):
    """Values of 400 kB a sample: batches of more than five leave a core's cache."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.second = nn.Conv2d(16, 12, 3, stride=2, padding=1)
        self.third = nn.Conv2d(12, 12, 1)
        self.last = nn.Linear(12, 5)

    def forward(self, x):
        x = torch.relu(self.first(x))
        x = torch.relu(self.second(x))
        x = torch.relu(self.third(x) + x)
        return self.last(x.mean((2, 3))), x


@pytest.fixture(scope="module")
def fast():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 120, 120)
    fast = fastinfer.convert(Net().eval(), x, config="int8", calibration=[x])
    assert "engine" in str(fastinfer.report(fast))
    return fast


def alone(fast, x):
    parts = [fast(sample) for sample in x.split(1)]
    return tuple(torch.cat(values) for values in zip(*parts, strict=True))


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("batch", [1, 2, 5, 6, 7, 13, 16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_samples_do_not_depend_on_their_batch(fast, batch, count, layout, threads):
    threads(count)
    x = torch.randn(batch, 3, 120, 120).contiguous(memory_format=layout)
    for got, wanted in zip(fast(x), alone(fast, x), strict=True):
        assert_equal(got, wanted)


def test_many_callers_with_large_batches(fast, threads):
    threads(2)
    inputs = [torch.randn(batch, 3, 120, 120) for batch in (6, 7, 8, 9)]
    wanted = [alone(fast, x) for x in inputs]
    wrong = []

    def call(index):
        for _ in range(6):
            for got, value in zip(fast(inputs[index]), wanted[index], strict=True):
                if not torch.equal(got, value):
                    wrong.append(index)

    callers = [threading.Thread(target=call, args=(i,)) for i in range(len(inputs))]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


class Windows(nn.Module):
    """Layers on windows of an image: a sample is many of their values' samples."""

    def __init__(self) -> None:
        super().__init__()
        self.cut, self.norm = nn.Conv2d(3, 24, 1), nn.LayerNorm(24)
        self.qkv, self.out = nn.Linear(24, 72), nn.Linear(24, 24)
        self.mask = nn.Parameter(torch.randn(1, 64, 1, 64, 64))
        self.place = nn.Parameter(torch.randn(64, 64, 24))  # sizes are its, not free

    def forward(self, x):
        x = self.cut(x).permute(0, 2, 3, 1) + self.place
        n = x.shape[0]
        y = self.norm(x).view(n, 8, 8, 8, 8, 24).transpose(2, 3).reshape(n * 64, 64, 24)
        q, k, v = self.qkv(y).view(n * 64, 64, 3, 2, 12).permute(2, 0, 3, 1, 4)
        scores = (q * 0.3) @ k.transpose(-2, -1)
        scores = (scores.view(n, 64, 2, 64, 64) + self.mask).view(n * 64, 2, 64, 64)
        y = (scores.softmax(-1) @ v).transpose(1, 2).reshape(n * 64, 64, 24)
        y = self.out(y).view(n, 8, 8, 8, 8, 24).transpose(2, 3).reshape(n, 64, 64, 24)
        return self.norm(x + y)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("batch", [1, 2, 5, 8])
@torch.inference_mode()
def test_samples_of_many_windows(batch, count, threads):
    torch.manual_seed(0)
    fast = fastinfer.convert(Windows().eval(), torch.randn(2, 3, 64, 64), config="int8")
    (found,) = regions_of(fast)
    masks = [step for step in found.region.steps if step.kind == "float_attention"]
    assert [step.arguments[3] for step in masks] == [(64, 1, 64, 64)]
    threads(count)
    x = torch.randn(batch, 3, 64, 64)
    with runtime.recording() as calls:
        value = fast(x)
    assert calls[0].slices > 1 or batch < 5
    assert_equal(value, torch.cat([fast(sample) for sample in x.split(1)]))
