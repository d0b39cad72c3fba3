"""A model gives one set of integers: on every ISA, on 1 and 2 threads, however a batch is split.

Every uint8 tensor of the lowered graph is compared, not only the answer: a difference inside may
round away at the end and show on other data. Layers are large enough to be split over threads.
"""

from __future__ import annotations

import functools

import pytest
import torch
from small_models import seeded
from torch import fx, nn

import fastinfer
from fastinfer import runtime
from fastinfer.nn import PackedModule, repack
from fastinfer.testing.compare import assert_equal

BATCH = 5
SPLITS = ((5,), (1, 4), (2, 3), (1, 1, 1, 1, 1))


def conv(inputs, outputs, size, *, stride=1, groups=1, act=nn.ReLU6):
    layer = nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), *([act()] if act else []))


class Mobile(nn.Module):
    """What mobile networks are made of: every kind of conv op, residuals, clamps and tables.

    Channels that no tile divides. What stands between the layers is int8 too: pools, squeeze and
    excitation, a cat, an addition of two pools and a function of its own.
    """

    def __init__(self):
        super().__init__()
        self.stem = conv(3, 16, 3, stride=2, act=nn.Hardswish)
        self.pool = nn.MaxPool2d(3, 1, 1)
        self.expand, self.depth = conv(16, 70, 1), conv(70, 70, 3, groups=70)
        self.project = conv(70, 16, 1, act=None)
        self.grouped = conv(16, 32, 3, groups=2, act=nn.SiLU)
        self.down = conv(32, 32, 5, stride=2, groups=32, act=nn.Hardswish)
        self.squeeze, self.excite = nn.Conv2d(32, 7, 1), nn.Conv2d(7, 32, 1)
        self.last = conv(96, 72, 1, act=nn.ReLU)
        self.hidden, self.head = nn.Linear(72, 51), nn.Linear(51, 10)

    def forward(self, x):
        x = self.pool(self.stem(x))
        x = x + self.project(self.depth(self.expand(x)))
        x = self.down(self.grouped(x))
        gate = self.excite(torch.relu(self.squeeze(x.mean((2, 3), keepdim=True))))
        x = x * nn.functional.hardsigmoid(gate)
        pools = nn.functional.avg_pool2d(x, 3, 1, 1) + nn.functional.max_pool2d(x, 3, 1, 1)
        x = self.last(torch.cat([x, nn.functional.relu(pools), nn.functional.silu(x)], 1))
        return self.head(torch.relu(self.hidden(x.mean((2, 3)))))


class Mixer(nn.Module):
    """Linear layers only: a table, a residual, a clamp."""

    def __init__(self):
        super().__init__()
        self.first, self.wide = nn.Linear(301, 300), nn.Linear(300, 514)
        self.narrow, self.head = nn.Linear(514, 300), nn.Linear(300, 450)

    def forward(self, x):
        x = torch.relu(self.first(x))
        return self.head(x + self.narrow(nn.functional.gelu(self.wide(x))))


class Encoder(nn.Module):
    """Attention and layer norms in float between linear layers."""

    def __init__(self):
        super().__init__()
        self.norm, self.qkv = nn.LayerNorm(96), nn.Linear(96, 288)
        self.out, self.head = nn.Linear(96, 96), nn.Linear(96, 130)

    def forward(self, x):
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, 4, 24)).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.out(y.transpose(1, 2).flatten(2))
        return self.head(nn.functional.gelu(x))


MODELS = {"mobile": (Mobile, (3, 37, 35)), "mixer": (Mixer, (301,)), "encoder": (Encoder, (19, 96))}


def build(name):
    """Return (model, whole batch)."""
    make, shape = MODELS[name]
    model = seeded(make)
    # Samples of unlike size: a range shared by a batch would show.
    size = torch.arange(1.0, BATCH + 1).view(-1, *[1] * len(shape))
    return model, torch.randn(BATCH, *shape) * size


@functools.cache
def converted(name, config):
    """Return (converted model, whole batch)."""
    model, x = build(name)
    fast = fastinfer.convert(model, x, config=config)
    assert fastinfer.report(fast).path == "graph"
    assert not fastinfer.report(fast).fallbacks
    return fast, x


class Integers(fx.Interpreter):
    """Runs a lowered graph and keeps what is uint8 or comes from a packed module, by node."""

    def __init__(self, graph_module):
        super().__init__(graph_module)
        self.values: dict[str, torch.Tensor] = {}

    def run_node(self, n):
        value = super().run_node(n)
        packed = n.op == "call_module" and any(
            isinstance(m, PackedModule) for m in self.module.get_submodule(n.target).modules()
        )
        is_code = isinstance(value, torch.Tensor) and value.dtype == torch.uint8
        if packed or (is_code and n.op != "get_attr"):  # a table is no code of a sample
            self.values[n.name] = value
        return value


def run(fast, x, split):
    """Return every integer tensor, and the answer, of a batch given in parts."""
    found: dict[str, list[torch.Tensor]] = {}
    with torch.inference_mode():
        for part in x.split(list(split)):
            inside = Integers(fast.lowered)
            (answer,) = inside.run(part)
            assert_equal(fast(part), answer)
            for name, value in {**inside.values, "answer": answer}.items():
                found.setdefault(name, []).append(value)
    return {name: torch.cat(values) for name, values in found.items()}


def check(fast, x, splits, isa, count, threads):
    """Compare isa and thread count with scalar code on one thread and the whole batch."""
    threads(1)
    runtime.set_isa("scalar")
    repack(fast)
    wanted = run(fast, x, (BATCH,))
    threads(count)
    runtime.set_isa(isa)
    assert repack(fast) == sum(isinstance(m, PackedModule) for m in fast.modules()) > 0
    for split in splits:
        got = run(fast, x, split)
        assert got.keys() == wanted.keys()
        for name, value in got.items():
            assert torch.equal(value, wanted[name]), (
                f"{name}: {int((value != wanted[name]).sum())} of {value.numel()} differ from "
                f"scalar, 1 thread, whole batch with {isa}, {count} threads, split {split}"
            )
    return wanted


every_way = pytest.mark.parametrize(
    ("isa", "count"),
    [(isa, count) for isa in runtime.supported_isas() for count in (1, 2)],
)


@pytest.mark.parametrize("name", ["mobile", "mixer"])
@every_way
def test_static(name, isa, count, every_isa, threads):
    fast, x = converted(name, "int8")
    values = check(fast, x, SPLITS, isa, count, threads)
    integers = [v for v in values.values() if v.dtype == torch.uint8]
    # Each layer but those that answer in float, and the input.
    assert len(integers) >= len(fastinfer.report(fast).layers) - 1
    assert all(v.unique().numel() > 10 for v in integers)


@pytest.mark.parametrize("name", ["mobile", "mixer"])
@every_way
def test_dynamic(name, isa, count, every_isa, threads):
    """Convolutions have a range a sample, linear layers one a row: no sample sees its batch."""
    fast, x = converted(name, "int8-dynamic")
    check(fast, x, SPLITS, isa, count, threads)


@pytest.mark.parametrize("config", ["int8", "int8-dynamic"])
@every_way
def test_attention(config, isa, count, every_isa, threads):
    """Between the linear layers torch computes in float."""
    fast, x = converted("encoder", config)
    check(fast, x, SPLITS, isa, count, threads)


@pytest.mark.parametrize("name", ["mobile", "mixer"])
def test_converting_on_any_isa_gives_the_same_integers(name, every_isa, threads):
    threads(1)
    model, x = build(name)
    states = []
    for isa in every_isa:
        runtime.set_isa(isa)
        states.append(fastinfer.convert(model, x, config="int8").state_dict())
    for state in states[1:]:
        assert state.keys() == states[0].keys()
        for key, value in state.items():
            assert_equal(value, states[0][key])
