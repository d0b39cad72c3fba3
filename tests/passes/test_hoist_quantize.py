"""hoist_quantize: codes move instead of floats, with the same codes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn

import fastinfer

own = torch.ops.fastinfer


class Moved(nn.Module):
    """A norm, which answers in float, something that moves its elements, and a convolution."""

    def __init__(self, move):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 8)
        self.last, self.move = nn.LazyConv2d(4, 1), move

    def forward(self, x):
        return self.last(self.move(self.norm(self.first(x))))


MOVES = {
    "max pool": lambda x: F.max_pool2d(x, 3, 2, 1),
    "upsample": lambda x: F.interpolate(x, scale_factor=2),
    "reflect": lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"),
    "constant": lambda x: F.pad(x, (1, 0, 2, 1), value=0.7),
    "roll": lambda x: x.roll(2, 3),
    "shuffle": lambda x: F.pixel_shuffle(x, 2),
    "two": lambda x: F.max_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 2),
    "permute": lambda x: x.permute(0, 1, 3, 2),
}


def quantized(fast):
    """Return the nodes that are quantized, in the graph that is run op by op."""
    graphs = [m for name, m in fast.named_modules() if isinstance(m, fx.GraphModule) and name]
    return [n.args[0] for n in graphs[0].graph.nodes if n.target is own.quantize.default]


@pytest.mark.parametrize("name", MOVES)
@torch.inference_mode()
def test_what_moves_is_codes(name, monkeypatch):
    torch.manual_seed(0)
    model, x = Moved(MOVES[name]).eval(), torch.randn(2, 3, 8, 10)
    model(x)
    fast = fastinfer.convert(model, (x,), config="int8")
    assert "hoist_quantize" in str(fastinfer.report(fast))
    assert len(fastinfer.report(fast).regions) == 1
    assert [n.target for n in quantized(fast)][1:] == [own.float_group_norm.default]
    passes = [p for p in fastinfer.passes.INT8_PASSES if p.__name__ != "hoist_quantize"]
    monkeypatch.setattr("fastinfer.paths.graph.INT8_PASSES", tuple(passes))
    other = fastinfer.convert(model, (x,), config="int8")
    assert len(quantized(other)) == 2 and quantized(other)[1].target is not (
        own.float_group_norm.default
    )
    for size in ((2, 3, 8, 10), (1, 3, 12, 6)):
        y = torch.randn(size)
        assert torch.equal(fast(y), other(y))


@torch.inference_mode()
def test_what_others_read_in_float_stays():
    class Both(Moved):
        def forward(self, x):
            y = F.max_pool2d(self.norm(self.first(x)), 2)
            return self.last(y), y

    torch.manual_seed(0)
    model, x = Both(None).eval(), torch.randn(2, 3, 8, 10)
    model(x)
    fast = fastinfer.convert(model, (x,), config="int8")
    assert "hoist_quantize" not in str(fastinfer.report(fast))
