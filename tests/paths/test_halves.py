"""float16 and bfloat16 models, which become int8 on a GPU; here a CPU takes them as one."""

from __future__ import annotations

import copy
import importlib

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn

import fastinfer
from fastinfer.graph.capture import capture
from fastinfer.graph.in_float32 import in_float32, is_half
from fastinfer.measure import sqnr_db
from fastinfer.nn import InDtype, Int8LinearDynamic
from fastinfer.passes import FLOAT_PASSES, run_passes
from fastinfer.passes.cast_halves import cast_halves
from fastinfer.program import Program
from fastinfer.types import device

HALVES = (torch.float16, torch.bfloat16)
#: Rounding to int8 costs more than rounding to 8 bits of a bfloat16's fraction.
FLOOR_DB = 30.0


@pytest.fixture
def halves(monkeypatch):
    monkeypatch.setattr(device, "HALF_DEVICES", frozenset({"cpu", "cuda"}))


class Gated(nn.Module):
    """Int8 islands in float parts: a norm that widens, a residual in float, views of layers."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 32, 3, 2, 1)
        self.norm = nn.BatchNorm2d(32)
        self.next = nn.Conv2d(32, 32, 3, 1, 1)
        self.gate = nn.Linear(32, 32)
        self.wide = nn.Linear(32, 24)
        self.fc = nn.Linear(24, 32)

    def forward(self, x):
        x = F.relu(self.norm(self.conv(x)))
        y = F.relu(self.next(x) + x)
        y = F.max_pool2d(y, 2).mean((2, 3))
        y = y * torch.sigmoid(self.gate(y))
        z = y.float()
        z = (z * torch.rsqrt(z.square().mean(-1, keepdim=True) + 1e-6)).to(y.dtype)
        return self.fc(F.gelu(self.wide(z))) + y


def made(dtype):
    torch.manual_seed(0)
    model, x = Gated().eval().to(dtype), torch.randn(4, 3, 16, 16).to(dtype)
    with torch.no_grad():
        reference = copy.deepcopy(model).float()(x.float())
    return model, x, reference


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("config", ["int8", "int8-dynamic", "int8-weight-only"])
def test_a_graph_answers_in_the_models_dtype(halves, dtype, config, tmp_path):
    model, x, reference = made(dtype)
    fast = fastinfer.convert(model, x, config=config)
    report = fastinfer.report(fast)
    assert report.path == "graph"
    assert {row.precision for row in report.layers} == {config}
    y = fast(x)
    assert y.dtype == dtype
    assert sqnr_db(reference, y.float()) > FLOOR_DB
    assert [p.dtype for p in model.parameters()] == [dtype] * len(list(model.parameters()))
    weights = sum(r.float_weight_bytes for r in report.layers)
    kinds = (nn.Linear, nn.Conv2d)
    layers = [m.weight for m in model.modules() if isinstance(m, kinds)]
    assert weights == sum(w.numel() * 2 for w in layers)
    fastinfer.save(fast, tmp_path / "m")
    assert torch.equal(fastinfer.load(tmp_path / "m")(x), y)
    assert torch.equal(copy.deepcopy(fast)(x[:1]), fast(x[:1]))


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_auto_times_the_layers_as_they_are(halves, dtype, monkeypatch):
    choose = importlib.import_module("fastinfer.tune.choose")  # a function hides it
    seen = []

    def race(float_call, fast_call, limit_s):
        seen.append(float_call().dtype)
        return 2.0, 1.0

    monkeypatch.setattr(choose, "race_ms", race)
    monkeypatch.setattr(choose, "best_ms", lambda call, limit_s: float(call().dtype != torch.uint8))
    model, x, reference = made(dtype)
    fast = fastinfer.convert(model, x)
    assert set(seen) == {dtype}
    assert fast(x).dtype == dtype and sqnr_db(reference, fast(x).float()) > FLOOR_DB


def test_int8_neighbours_stay_int8(halves):
    """Casts are only where float begins again: none between two int8 operations."""
    model, x, _ = made(torch.float16)
    graph = fastinfer.convert(model, x, config="int8").lowered.graph
    own = torch.ops.fastinfer
    for node in graph.nodes:
        if node.target is own.dequantize.default:
            assert all(user.kwargs == {"dtype": torch.float16} for user in node.users)
    images = [n for n in graph.nodes if n.target is own.quantize.default and n.args[3]]
    assert len(images) == 1


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_modules_answer_in_the_models_dtype(halves, dtype):
    model, x, reference = made(dtype)
    fast = fastinfer.convert(model, config="int8")
    assert {row.precision for row in fastinfer.report(fast).layers} == {"int8-dynamic"}
    assert fast(x).dtype == dtype
    assert sqnr_db(reference, fast(x).float()) > FLOOR_DB
    layer = fast.model.fc
    assert isinstance(layer, InDtype) and isinstance(layer.module, Int8LinearDynamic)
    assert layer.in_features == 24 and layer.weight.shape == (32, 24)
    with pytest.raises(AttributeError, match="nothing_of_this_name"):
        _ = layer.nothing_of_this_name


def test_a_cpu_leaves_them_as_they_are():
    model, x, _ = made(torch.bfloat16)
    with torch.no_grad():
        want = model(x)
    fast = fastinfer.convert(model, x, config="int8")
    rows = fastinfer.report(fast).layers
    assert {row.precision for row in rows} == {"fp32"}
    assert {row.reason for row in rows} == {"weight is bfloat16, int8 layers need float32"}
    assert sqnr_db(want.float(), fast(x).float()) > 40


def test_in_float32(halves):
    model, x, _ = made(torch.float16)
    program = run_passes(Program(capture(model, (x,)).graph_module), FLOAT_PASSES)
    graph_module = program.graph_module
    wide = in_float32(graph_module)
    assert is_half(graph_module) and not is_half(wide)
    assert [n.name for n in wide.graph.nodes] == [n.name for n in graph_module.graph.nodes]
    values = [
        n.meta["val"] for n in wide.graph.nodes if isinstance(n.meta.get("val"), torch.Tensor)
    ]
    assert values and {v.dtype for v in values} == {torch.float32}
    assert {p.dtype for p in graph_module.parameters()} == {torch.float16}
    (got,), (want,) = wide(x.float()), graph_module(x)
    assert got.dtype == torch.float32
    assert sqnr_db(got, want.float()) > 50


def test_casts_are_placed_once():
    graph = fx.Graph()
    own = torch.ops.fastinfer
    x = graph.placeholder("x")
    x.meta["val"] = torch.empty(2, 4, dtype=torch.float16)
    codes = graph.call_function(own.quantize.default, (x, 0.5, 3, False))
    again = graph.call_function(own.quantize.default, (x, 0.25, 3, False))
    value = graph.call_function(own.dequantize.default, (codes, 0.5, 3))
    value.meta["val"] = torch.empty(2, 4, dtype=torch.float16)
    total = graph.call_function(torch.ops.aten.add.Tensor, (value, x))
    other = graph.call_function(own.quantize.default, (value, 0.125, 3, False))
    graph.output((total, other, again))
    program = Program(fx.GraphModule(nn.Module(), graph))
    assert cast_halves(program) == 1
    assert cast_halves(program) == 0
    given = torch.randn(2, 4).half()
    total, other, _ = program.graph_module(given)
    codes = own.quantize(given, 0.5, 3)
    assert torch.equal(total, own.dequantize(codes, 0.5, 3).half() + given)
    assert torch.equal(other, own.quantize(own.dequantize(codes, 0.5, 3), 0.125, 3))
