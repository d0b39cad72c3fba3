"""What the plans of networks that join and split channels still copy."""

from __future__ import annotations

import pytest
import torch
import torchvision

import fastinfer
from fastinfer import runtime

pytestmark = pytest.mark.models

#: Bytes that cats and slices copy for one image of SIZE pixels, at most. A ShuffleNet with random
#: weights converts one part, whose range is not its cat's.
SIZE = 224
BOUNDS = {"squeezenet1_1": 0, "googlenet": 0, "densenet121": 0, "shufflenet_v2_x1_0": 32 * 1024}
#: By what the arena may exceed what is alive at one step.
ARENA_BOUND = 1.3


@pytest.mark.parametrize("name", BOUNDS)
def test_copied_bytes(name):
    torch.manual_seed(0)
    options = {"init_weights": True} if name == "googlenet" else {}
    model = getattr(torchvision.models, name)(weights=None, **options).eval()
    x = torch.randn(1, 3, SIZE, SIZE)
    fast = fastinfer.convert(model, x, config="int8", calibration=[x])
    with torch.inference_mode(), runtime.recording() as calls:
        fast(x)
    assert calls
    assert all(c.arena_bytes <= ARENA_BOUND * c.arena_lower_bound for c in calls)
    assert sum(c.copied_bytes for c in calls) <= BOUNDS[name]
