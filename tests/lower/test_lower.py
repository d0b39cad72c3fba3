"""lower: planned graphs on packed modules, against the simulation of their plan."""

from __future__ import annotations

from functools import cache

import pytest
import torch
import torch.nn.functional as F
from layer_graph import layer_graph, random_batches
from torch import nn

from fastinfer.compress.quantize import Calibrator, quantize
from fastinfer.compress.quantize.bias_correction import correct_biases, simulate
from fastinfer.config import Config
from fastinfer.graph.capture import capture
from fastinfer.graph.layer import Layer
from fastinfer.lower import lower
from fastinfer.nn import Int8Conv2d, PackedModule
from fastinfer.passes import FLOAT_PASSES, run_passes
from fastinfer.program import LayerPlan
from fastinfer.testing.compare import sqnr_db

INT8 = Config(precision="int8")


class Residual(nn.Module):
    def __init__(self, activation=nn.ReLU):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8)
        self.a, self.b = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.dw, self.pw = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 12, 1)
        self.act1, self.act2 = activation(), activation()
        self.act3, self.act4 = activation(), activation()
        self.head = nn.Linear(12, 5)

    def forward(self, x):
        x = self.act1(self.norm(self.stem(x)))
        x = self.act3(self.b(self.act2(self.a(x))) + x)
        x = self.pw(self.act4(self.dw(x)))
        return self.head(x.mean((2, 3)))


class Branches(nn.Module):
    """Int8 tensors that floats read too, a cat, a pool, and one tensor read by two layers."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.d = nn.Conv2d(12, 4, 1)

    def forward(self, x):
        x = self.a(x)
        y = torch.cat([F.max_pool2d(x, 2), self.b(F.max_pool2d(x, 2)),
                       F.avg_pool2d(self.c(x), 2)], 1)  # fmt: skip
        return self.d(y), torch.sigmoid(x)


def seeded(make, *args):
    torch.manual_seed(3)
    return make(*args).eval()


def planned(program, batches, config=INT8):
    calibrator = Calibrator(program, config).run(batches)
    program = quantize(program, calibrator, config)
    return program, calibrator


def outputs(value):
    return list(value) if isinstance(value, (tuple, list)) else [value]


def agree(program, batches, wanted_db):
    """Check the lowered graph against the float graph, and that the program is unchanged."""
    nodes = [n.format_node() for n in program.graph_module.graph.nodes]
    kinds = {n: type(m) for n, m in program.graph_module.named_modules()}
    module = lower(program)
    with torch.no_grad():
        wanted = [outputs(program.graph_module(x)) for x in batches]
        got = [outputs(module(x)) for x in batches]
    for w, g in zip(zip(*wanted, strict=True), zip(*got, strict=True), strict=True):
        assert [t.shape for t in g] == [t.shape for t in w]
        assert [t.dtype for t in g] == [t.dtype for t in w]
        assert sqnr_db(torch.cat(w), torch.cat(g)) > wanted_db
    assert nodes == [n.format_node() for n in program.graph_module.graph.nodes]
    assert kinds == {n: type(m) for n, m in program.graph_module.named_modules()}
    return module


BATCHES = random_batches((2, 3, 12, 12))


@pytest.mark.parametrize("activation", [nn.ReLU, nn.ReLU6, nn.SiLU, nn.Hardswish, nn.GELU])
def test_hand_made_graph(activation):
    program, calibrator = planned(layer_graph(seeded(Residual, activation)), BATCHES)
    corrected, result = correct_biases(program, calibrator.samples)
    module = agree(corrected, BATCHES, result.output_sqnr_db - 1)
    packed = [m for m in module.modules() if isinstance(m, PackedModule)]
    assert len(packed) == 6 and result.output_sqnr_db > 20
    other = random_batches((3, 3, 7, 9), 1, seed=9)
    agree(corrected, other, 15)


def test_int8_stays_between_layers():
    program, _ = planned(layer_graph(seeded(Residual)), BATCHES)
    module = lower(program)
    targets = [n.target for n in module.graph.nodes if n.op == "call_function"]
    assert targets.count(torch.ops.fastinfer.quantize.default) == 2  # the input and the mean
    assert targets.count(torch.ops.fastinfer.dequantize.default) == 0


@cache
def captured(model):
    return run_passes(capture(seeded(model), (BATCHES[0],)), FLOAT_PASSES)


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("model", [Residual, Branches])
def test_captured_model(model, per_channel):
    program = captured(model)
    config = Config(precision="int8", per_channel=per_channel)
    program, calibrator = planned(program, BATCHES, config)
    assert all(p.precision == "int8" for p in program.plan.values())
    expected = simulate(program, calibrator.samples).output_sqnr_db
    agree(program, BATCHES, min(expected - 3, 22))


@pytest.mark.parametrize("float_layer", ["stem", "a", "b", "dw", "pw", "head"])
def test_borders_to_float_layers(float_layer):
    config = Config(precision="int8", ignore=(float_layer,))
    program, _ = planned(layer_graph(seeded(Residual)), BATCHES, config)
    module = agree(program, BATCHES, 20)
    assert isinstance(module.get_submodule(float_layer), Layer)


def test_one_int8_layer_among_floats():
    names = ("stem", "b", "dw", "pw", "head")
    program, _ = planned(
        layer_graph(seeded(Residual)), BATCHES, Config(precision="int8", ignore=names)
    )
    module = agree(program, BATCHES, 25)
    assert isinstance(module.a, Int8Conv2d) and module.a.float_output


@pytest.mark.parametrize("precision", ["int8-dynamic", "int8-weight-only", "bf16", "fp32"])
def test_other_precisions(precision):
    program = layer_graph(seeded(Residual))
    names = [n for n, m in program.graph_module.named_modules() if isinstance(m, Layer)]
    agree(program.with_plan({n: LayerPlan(precision) for n in names}), BATCHES, 25)


def test_unplanned_layers_stay_float():
    program = layer_graph(seeded(Residual))
    module = agree(program, BATCHES, 100)
    assert not any(isinstance(m, PackedModule) for m in module.modules())


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 6)

    def forward(self, x):
        return self.linear(F.relu(self.linear(x)))


def test_shared_weights_have_one_plan_a_call():
    batches = random_batches((8, 6))
    program = run_passes(capture(seeded(Shared), (batches[0],)), FLOAT_PASSES)
    program, _ = planned(program, batches)
    assert len(program.plan) == 2
    agree(program, batches, 25)
