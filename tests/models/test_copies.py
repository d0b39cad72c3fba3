"""What the plans of networks that join and split channels still copy."""

from __future__ import annotations

import pytest
import torch
import torchvision

import fastinfer
from fastinfer import runtime
from fastinfer.engine import RegionModule

pytestmark = pytest.mark.models

#: Bytes that cats and slices copy for one image of SIZE pixels, at most. A ShuffleNet with random
#: weights converts one part, whose range is not its cat's.
SIZE = 224
BOUNDS = {"squeezenet1_1": 0, "googlenet": 0, "densenet121": 0, "shufflenet_v2_x1_0": 32 * 1024}
#: By what the arena may exceed what is alive at one step.
ARENA_BOUND = 1.3


@pytest.mark.parametrize("name", BOUNDS)
def test_copied_bytes(name, monkeypatch):
    programs = []
    forward = RegionModule.forward

    def recorded(self, *inputs):
        programs.append(self._program)
        return forward(self, *inputs)

    torch.manual_seed(0)
    options = {"init_weights": True} if name == "googlenet" else {}
    model = getattr(torchvision.models, name)(weights=None, **options).eval()
    x = torch.randn(1, 3, SIZE, SIZE)
    fast = fastinfer.convert(model, x, config="int8", calibration=[x])
    monkeypatch.setattr(RegionModule, "forward", recorded)
    with torch.inference_mode():
        fast(x)
    assert programs
    plans = [runtime.region_plans(program)[0] for program in programs]
    assert all(p["arena_bytes"] <= ARENA_BOUND * p["arena_lower_bound"] for p in plans)
    assert sum(p["copied_bytes"] for p in plans) <= BOUNDS[name]
