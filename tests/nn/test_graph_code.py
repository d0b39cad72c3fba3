"""GraphCode does what the graph module's own forward does."""

from __future__ import annotations

import copy
import operator
import pickle

import torch
from torch import fx, nn

from fastinfer.nn.graph_code import GraphCode, only_region
from fastinfer.testing.compare import assert_equal


class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(4, 4), nn.Sequential(nn.ReLU(), nn.Linear(4, 3))])
        self.shift = nn.Parameter(torch.ones(4))

    def forward(self, x, y):
        return self.blocks[1](self.blocks[0](x) + self.shift), y * 2


def traced():
    torch.manual_seed(0)
    return fx.symbolic_trace(Inner())


X, Y = torch.randn(5, 4), torch.randn(2)


def check(code, module):
    for got, wanted in zip(code(module, X, Y), module(X, Y), strict=True):
        assert_equal(got, wanted)


def test_equals_forward():
    module = traced()
    target = [n.target for n in module.graph.nodes if n.op == "call_module"]
    check(GraphCode(), module)
    assert [n.target for n in module.graph.nodes if n.op == "call_module"] == target


def test_sees_hooks_values_and_replaced_modules():
    module, code = traced(), GraphCode()
    check(code, module)
    module.get_submodule("blocks.0").register_forward_hook(lambda m, args, out: out * 3)
    check(code, module)
    with torch.no_grad():
        module.shift.fill_(-2)
    check(code, module)
    module.set_submodule("blocks.1.1", nn.Linear(4, 7))
    check(code, module)
    assert code(module, X, Y)[0].shape == (5, 7)


def test_sees_recompiled_code():
    module, code = traced(), GraphCode()
    check(code, module)
    (double,) = [n for n in module.graph.nodes if n.target is operator.mul]
    double.args = (double.args[0], 5)
    module.recompile()
    check(code, module)


def test_copies_and_pickles():
    module, code = traced(), GraphCode()
    check(code, module)
    for other in (copy.deepcopy(code), pickle.loads(pickle.dumps(code))):
        check(other, module)


class Region(nn.Linear):
    def answer(self, x, known):
        return None


def test_only_region():
    region = nn.Sequential(Region(4, 4), nn.ReLU())
    graph = fx.Graph()
    x = graph.placeholder("x")
    called = graph.call_module("0", (x,))
    graph.output((called,))
    assert only_region(fx.GraphModule(region, graph)) == "0"
    graph = fx.Graph()
    x = graph.placeholder("x")
    called = graph.call_module("1", (graph.call_module("0", (x,)),))
    graph.output((called,))
    assert only_region(fx.GraphModule(region, graph)) is None
    graph = fx.Graph()
    x = graph.placeholder("x")
    called = graph.call_module("0", (x,))
    graph.output((called, x))
    assert only_region(fx.GraphModule(region, graph)) is None
    graph = fx.Graph()
    graph.output((graph.call_module("1", (graph.placeholder("x"),)),))
    assert only_region(fx.GraphModule(region, graph)) is None
