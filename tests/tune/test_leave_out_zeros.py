"""Float layers that are mostly zero: who runs on sparse kernels, and that it is the layer."""

from __future__ import annotations

import copy
import importlib

import pytest
import torch
from layer_graph import layer_graph
from torch import nn

import fastinfer
from fastinfer.config import Config
from fastinfer.nn import SparseFloat
from fastinfer.testing.cases_sparse_float import sparse_weight
from fastinfer.testing.compare import float32_bound
from fastinfer.tune import leave_out_zeros

SPARSE = importlib.import_module("fastinfer.tune.sparse_float")
FP32 = Config(precision="fp32")


class Net(nn.Module):
    """A dense layer, convolutions of either kind with a residual between them, and a linear one."""

    def __init__(self):
        super().__init__()
        self.dense = nn.Conv2d(3, 32, 3, padding=1)
        self.a = nn.Conv2d(32, 64, 3, stride=2, padding=1)
        self.b = nn.Conv2d(64, 64, (1, 3), padding=(0, 1), groups=1)
        self.c = nn.Conv1d(64, 96, 3, bias=False)
        self.head = nn.Linear(96, 80)

    def forward(self, x):
        x = torch.relu(self.a(torch.relu(self.dense(x))))
        x = torch.relu(self.b(x) + x)
        x = nn.functional.hardswish(self.c(x.mean(2)))
        return self.head(x.mean(2))


class Branching(Net):
    """One that is not captured: its layers are swapped."""

    def forward(self, x):
        return super().forward(x) if x.sum() > -1e9 else super().forward(-x)


def pruned(kind=Net, density=0.1):
    torch.manual_seed(0)
    net = kind().eval()
    g = torch.Generator().manual_seed(1)
    for name, module in net.named_modules():
        if name in ("a", "b", "c", "head"):
            module.weight.data = sparse_weight(g, density, *module.weight.shape) / 4
    return net


X = torch.randn(2, 3, 20, 22, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def race(monkeypatch):
    """Return a function that has layers raced in given milliseconds, and what was raced."""
    raced = []

    def install(dense, sparse):
        def answer(float_call, fast_call, limit_s):
            float_call(), fast_call()
            raced.append(float_call.func.spec.out_features)
            return dense, sparse

        monkeypatch.setattr(SPARSE, "race_ms", answer)
        return raced

    return install


def close(value, net, x):
    """Compare with the model in float64, by the bound of float32 sums of the longest layer."""
    with torch.no_grad():
        wanted = copy.deepcopy(net).double()(x.double())
    k = max(p[0].numel() for p in net.parameters() if p.dim() > 1)
    largest = torch.ones(()) * max(1.0, float(wanted.abs().max()))
    assert float((value.double() - wanted).abs().max()) <= 5 * float32_bound(k, largest, X)


def convert(net, race_ms, race, config="fp32"):
    raced = race(*race_ms)
    fast = fastinfer.convert(net, X, config=config)
    return fast, {row.name: row for row in fastinfer.report(fast).layers}, raced


@pytest.mark.parametrize("kind", [Net, Branching])
def test_winners_run_on_sparse_kernels(kind, race):
    net = pruned(kind)
    fast, rows, raced = convert(net, (2.0, 1.0), race)
    assert sorted(raced) == [64, 64, 80, 96]  # the dense one is not timed
    assert {n: r.precision for n, r in rows.items()} == {
        "dense": "fp32", **dict.fromkeys(("a", "b", "c", "head"), "fp32-sparse"),
    }  # fmt: skip
    assert (rows["a"].float_ms, rows["a"].fast_ms) == (2.0, 1.0)
    assert rows["a"].weight_bytes < rows["a"].float_weight_bytes / 3
    assert len(fastinfer.report(fast).fallbacks) == 5
    for x in (X, X[:1], torch.cat([X, X])[:, :, :15, :19]):
        close(fast(x), net, x)
    again = copy.deepcopy(fast)
    assert torch.equal(again(X), fast(X))


def test_losers_stay_dense(race):
    _, rows, raced = convert(pruned(), (1.0, 0.99), race)
    assert len(raced) == 4 and {row.precision for row in rows.values()} == {"fp32"}


def test_few_zeros_are_not_timed(race):
    _, rows, raced = convert(pruned(density=0.7), (2.0, 1.0), race)
    assert not raced and {row.precision for row in rows.values()} == {"fp32"}


def test_layers_that_int8_serves_are_left_to_it(race):
    _, rows, raced = convert(pruned(), (2.0, 1.0), race, Config("int8", min_sqnr_db=-100.0))
    assert not raced and "fp32-sparse" not in {row.precision for row in rows.values()}


@pytest.mark.parametrize("kind", [Net, Branching])
def test_ignored_layers_stay_as_they_are(kind, race):
    config = Config("fp32", ignore=("a", "head"))
    _, rows, _ = convert(pruned(kind), (2.0, 1.0), race, config)
    assert {n for n, r in rows.items() if r.precision == "fp32-sparse"} == {"b", "c"}


def test_what_auto_keeps_in_float_may_be_sparse(race, timer, monkeypatch):
    timer({80: 3.0})
    monkeypatch.setattr(importlib.import_module("fastinfer.api"), "loses", lambda *args: False)
    _, rows, raced = convert(pruned(), (2.0, 1.0), race, Config("auto", min_sqnr_db=-100.0))
    assert raced == [80] and rows["head"].precision == "fp32-sparse"
    assert rows["head"].reason == "float is faster (2.000 against 3.000 ms)"


def test_channels_last_and_other_dtypes_stay_dense(race):
    raced = race(2.0, 1.0)
    for net in (pruned().to(memory_format=torch.channels_last), pruned().to(torch.bfloat16)):
        x = X.to(next(net.parameters()).dtype)
        rows = fastinfer.report(fastinfer.convert(net, x, config="fp32")).layers
        sparse = {row.name for row in rows if row.precision == "fp32-sparse"}
        assert sparse <= {"c", "head"}  # no images
    assert set(raced) <= {96, 80}


def test_a_program_without_zeros_is_left_alone(race):
    raced = race(2.0, 1.0)
    program = layer_graph(nn.Sequential(nn.Linear(80, 80)).eval())
    assert leave_out_zeros(program, FP32, [torch.zeros(2, 80)]) is program and not raced


def test_time_is_bounded(race, monkeypatch):
    monkeypatch.setattr(SPARSE, "BUDGET_S", -1.0)
    _, rows, raced = convert(pruned(), (2.0, 1.0), race)
    assert not raced and {row.precision for row in rows.values()} == {"fp32"}


def test_saved_and_loaded(race, tmp_path):
    fast, _, _ = convert(pruned(), (2.0, 1.0), race)
    fastinfer.save(fast, tmp_path / "net.fastinfer")
    loaded = fastinfer.load(tmp_path / "net.fastinfer")
    assert torch.equal(loaded(X), fast(X))
    assert sum(isinstance(m, SparseFloat) for m in loaded.modules()) == 4
    assert str(fastinfer.report(loaded)) == str(fastinfer.report(fast))


def test_other_dtypes_use_the_dense_weight(race):
    fast, _, _ = convert(pruned(), (2.0, 1.0), race)
    module = next(m for m in fast.modules() if isinstance(m, SparseFloat))
    x, residual = X.double()[:, :1].repeat(1, 32, 1, 1), torch.ones(1, dtype=torch.float64)
    a = pruned().a.double()
    with torch.no_grad():
        wanted = torch.relu(a(x) + residual)
        assert torch.equal(copy.deepcopy(module).double()(x, residual), wanted)
        assert module(x[0].float()).shape == wanted[0].shape  # without a batch


def test_module_describes_itself_and_checks_its_weight(race):
    fast, _, _ = convert(pruned(), (2.0, 1.0), race)
    module = next(m for m in fast.modules() if isinstance(m, SparseFloat))
    assert "not zero" in repr(module)
    assert torch.equal(module.weight, pruned().a.weight)
