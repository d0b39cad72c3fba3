"""region_reports: where regions begin and end, in names of operations."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

import fastinfer
from fastinfer.report import RegionReport


class Pyramid(nn.Module):
    """Two convolutions, something without a step, and two more."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.c, self.d = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 4, 1)
        self.kept = nn.Conv2d(4, 4, 1)

    def forward(self, x):
        y = self.b(F.relu(self.a(x)))
        z = self.d(F.relu(self.c(torch.cumsum(y, 3))))
        return y, self.kept(z)


def test_borders_are_named():
    torch.manual_seed(0)
    model, x = Pyramid().eval(), torch.randn(1, 3, 8, 8)
    config = fastinfer.Config("int8", ignore=("kept",))
    with torch.no_grad():
        fast = fastinfer.convert(model, x, config=config)
    first, second = fastinfer.report(fast).regions
    assert first == RegionReport(4, "", {"input": 1}, {"cumsum": 1, "output": 1})
    assert second == RegionReport(3, "", {"cumsum": 1}, {"float conv2d": 1})
    assert "3 steps from cumsum to float conv2d" in str(fastinfer.report(fast))
