"""Upsampling inside a region: free sizes are those of another value, and answers stay the same."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fastinfer
from fastinfer.engine import RegionModule


class Decoder(nn.Module):
    """Half the size and back to that of an earlier value, before the last convolution."""

    def __init__(self, enlarge):
        super().__init__()
        torch.manual_seed(0)
        self.down, self.up = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 8, 3, 2, 1)
        self.side, self.last = nn.Conv2d(16, 8, 1), nn.Conv2d(8, 4, 3)
        self.enlarge = enlarge

    def forward(self, x):
        y = F.relu(self.down(x))
        return self.last(self.side(y) + self.enlarge(F.relu(self.up(y)), y))


ENLARGE = {
    "nearest_like": lambda z, y: F.interpolate(z, size=y.shape[2:]),
    "bilinear_like": lambda z, y: F.interpolate(z, size=y.shape[2:], mode="bilinear"),
}


def kinds(module):
    regions = [m for m in module._regions[0].modules() if isinstance(m, RegionModule)]
    return [step.kind for region in regions for step in region.region.steps]


@pytest.mark.parametrize("name", ["nearest_like", "bilinear_like"])
def test_one_region_whatever_the_size(name):
    model = Decoder(ENLARGE[name]).eval()
    with torch.no_grad():
        fast = fastinfer.convert(model, torch.randn(2, 3, 32, 24), config="int8")
        (region,) = fastinfer.report(fast).regions
        assert region.before == {"input": 1} and region.after == {"output": 1}
        assert kinds(fast).count("int8_upsample2d") == 1
        for shape in ((2, 3, 32, 24), (1, 3, 31, 45)):
            x = torch.randn(shape)
            y, z = model(x), fast(x)
            assert y.shape == z.shape
            assert float((y - z).norm() / y.norm()) < 0.05


def test_fixed_sizes_and_factors():
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)

        def forward(self, x):
            y = F.interpolate(self.a(x), (20, 17), mode="bilinear", align_corners=True)
            return self.b(F.interpolate(y, scale_factor=2.0))

    model, x = Fixed().eval(), torch.randn(2, 3, 14, 12)
    with torch.no_grad():
        fast = fastinfer.convert(model, x, config="int8")
        assert kinds(fast).count("int8_upsample2d") == 2
        assert len(fastinfer.report(fast).regions) == 1
        y = model(x)
        assert float((y - fast(x)).norm() / y.norm()) < 0.05
