"""What the tests of tracing tools share: a converted model of one region, and ops of a graph."""

from __future__ import annotations

import functools

import torch
from small_models import leaves, make
from torch import fx, nn

import fastinfer
from fastinfer.nn.converted_module import ConvertedModule

REGION = "fastinfer.int8_region.default"
DYNAMIC = "fastinfer.int8_linear_dynamic.default"


@functools.cache
def converted(name):
    """Return (converted small model, an input of four samples, one of other sizes)."""
    model, x, other = make(name)
    with torch.no_grad():
        fast = fastinfer.convert(model, x, config="int8")
    assert isinstance(fast, ConvertedModule) and len(fastinfer.report(fast).regions) == 1
    return fast, torch.cat([x, -x, x.flip(-1), x * 0.5])[:4], other


class Gated(nn.Module):
    """A body that is captured under a branch on values, which is not."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1))

    def forward(self, x):
        y = self.body(x)
        return y if y.sum() > 0 else -y


@functools.cache
def gated():
    """Return (a model with a converted submodule, an input)."""
    torch.manual_seed(0)
    x = torch.randn(2, 3, 9, 9)
    with torch.no_grad():
        fast = fastinfer.convert(Gated().eval(), x, config="int8")
    assert fastinfer.report(fast).path == "submodules" and len(fastinfer.report(fast).regions) == 1
    return fast, x


@functools.cache
def swapped():
    """Return (a model on the module path whose code exports, an input)."""
    model, _, x = make("mlp")
    fast = fastinfer.convert(model, config="int8-dynamic")
    assert fastinfer.report(fast).path == "modules"
    return fast, x


def ops_of(graph_module: fx.GraphModule) -> list[str]:
    """Return the own ops a graph calls, and every op of float layers."""
    named = [str(n.target) for n in graph_module.graph.nodes if n.op == "call_function"]
    return [name for name in named if name.startswith(("fastinfer.", "aten.conv", "aten.linear"))]


def assert_same(got, wanted):
    """Check that two answers have one structure and the same bits."""
    (got, got_spec), (wanted, wanted_spec) = leaves(got), leaves(wanted)
    assert got_spec == wanted_spec
    for g, w in zip(got, wanted, strict=True):
        assert g.dtype == w.dtype and g.stride() == w.stride() and torch.equal(g, w)
