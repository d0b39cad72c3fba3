"""Operations between layers: what is found in a captured graph, and what it means."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fastinfer.graph.between import BetweenSpec, compute, find_betweens
from fastinfer.graph.capture import capture
from fastinfer.types import Activation

IMAGE = (2, 4, 9, 7)


class Body(nn.Module):
    """A function of an image, a scale per channel and a vector."""

    def __init__(self, body):
        super().__init__()
        self.body = body
        self.register_buffer("constant", torch.randn(1, 4, 1, 1))

    def forward(self, x, s, v):
        return self.body(x, s, v, self.constant)


def inputs():
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(shape, generator=generator) for shape in (IMAGE, (2, 4, 1, 1), (2, 4)))


def found(body):
    """Return [(node, between)] of a captured body, and its graph module."""
    program = capture(Body(body).eval(), inputs())
    return list(find_betweens(program.graph_module.graph).items()), program.graph_module


SERVED = {
    "add": (lambda x, s, v, c: x + x.trunc(), BetweenSpec("add")),
    "add_scale": (lambda x, s, v, c: s + x, BetweenSpec("add")),
    "mul_vectors": (lambda x, s, v, c: v * v.trunc(), BetweenSpec("mul")),
    "mul_scale": (lambda x, s, v, c: s * x, BetweenSpec("mul")),
    "cat": (
        lambda x, s, v, c: torch.cat([x, x.trunc()], -3),
        BetweenSpec("cat", dim=1),
    ),
    "max_pool": (
        lambda x, s, v, c: F.max_pool2d(x, 3, 2, 1, 1, True),
        BetweenSpec("max_pool", Activation(), (3, 3), (2, 2), (1, 1), (1, 1), True),
    ),
    "avg_pool": (
        lambda x, s, v, c: F.avg_pool2d(x, (3, 2), padding=(1, 0), count_include_pad=False),
        BetweenSpec("avg_pool", Activation(), (3, 2), (3, 2), (1, 0), count_include_pad=False),
    ),
    "adaptive": (
        lambda x, s, v, c: F.adaptive_avg_pool2d(x, (2, 3)),
        BetweenSpec("adaptive_avg_pool", output_size=(2, 3)),
    ),
    "upsample": (
        lambda x, s, v, c: F.interpolate(x, size=x.shape[2:], mode="bilinear"),
        BetweenSpec("upsample"),
    ),
    "upsample_corners": (
        lambda x, s, v, c: F.interpolate(x, (5, 11), mode="bilinear", align_corners=True),
        BetweenSpec("upsample", align_corners=True),
    ),
    "upsample_factors": (
        lambda x, s, v, c: F.interpolate(x, scale_factor=(1.5, 2), mode="bilinear"),
        BetweenSpec("upsample", scale_factors=(1.5, 2.0)),
    ),
    "mean": (
        lambda x, s, v, c: x.mean((-1, 2)),
        BetweenSpec("adaptive_avg_pool", keepdim=False),
    ),
    "mean_keepdim": (
        lambda x, s, v, c: x.mean((2, 3), keepdim=True),
        BetweenSpec("adaptive_avg_pool"),
    ),
    "silu": (lambda x, s, v, c: F.silu(x), BetweenSpec("activation", Activation("silu"))),
    "add_relu": (
        lambda x, s, v, c: torch.relu(x + x.trunc()),
        BetweenSpec("add", Activation("clamp", (0.0, math.inf))),
    ),
    "scalar": (
        lambda x, s, v, c: x - 1.5,
        BetweenSpec("activation", Activation("add_scalar", (-1.5,))),
    ),
    "less": (
        lambda x, s, v, c: 2 - x,
        BetweenSpec("activation", Activation("rsub_scalar", (2.0,))),
    ),
    "square": (lambda x, s, v, c: x**2, BetweenSpec("activation", Activation("square"))),
    "add_silu": (lambda x, s, v, c: F.silu(s + x), BetweenSpec("add", Activation("silu"))),
    "mul_relu6": (
        lambda x, s, v, c: F.relu6(x * s),
        BetweenSpec("mul", Activation("clamp", (0.0, 6.0))),
    ),
}


@pytest.mark.parametrize("name", SERVED)
def test_found_and_computed(name):
    body, spec = SERVED[name]
    betweens, graph_module = found(body)
    assert [between.spec for _, between in betweens] == [spec]
    ((node, between),) = betweens
    values = {}

    class Keep(torch.fx.Interpreter):
        def run_node(self, n):
            values[n] = super().run_node(n)
            return values[n]

    Keep(graph_module).run(*inputs())
    wanted = values[node]
    xs = [values[n] for n in between.inputs]
    size = torch.fx.node.map_arg(between.size, lambda n: values[n])
    assert torch.allclose(compute(spec, xs, size), wanted, atol=1e-6)


REFUSED = {
    "infinite": lambda x, s, v, c: x * math.inf,
    "scaled_scalar": lambda x, s, v, c: torch.add(x, 1.5, alpha=2),
    "cube": lambda x, s, v, c: x**3,
    "constant": lambda x, s, v, c: x * c,
    "alpha": lambda x, s, v, c: torch.add(x, x.trunc(), alpha=2),
    "row": lambda x, s, v, c: x + x[:, :, :1],
    "both": lambda x, s, v, c: s + x[:1],
    "double": lambda x, s, v, c: x.double() * x.double(),
    "divisor": lambda x, s, v, c: F.avg_pool2d(x, 2, divisor_override=3),
    "batchless": lambda x, s, v, c: F.max_pool2d(x[0], 2),
    "bicubic": lambda x, s, v, c: F.interpolate(x, (5, 5), mode="bicubic"),
    "antialias": lambda x, s, v, c: F.interpolate(x, (5, 5), mode="bilinear", antialias=True),
    "rows": lambda x, s, v, c: x.mean(3),
    "everything": lambda x, s, v, c: x.mean(),
    "indices": lambda x, s, v, c: F.max_pool2d(x, 2, return_indices=True)[0],
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    assert found(REFUSED[name])[0] == []


def test_sizes_of_a_cat_are_known_behind_layers():
    conv = nn.Conv2d(4, 6, 1)

    class Joined(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = conv

        def forward(self, x):
            return torch.cat([self.conv(x), self.conv(x.trunc())[:, :5]], 1)

    program = capture(Joined().eval(), inputs()[:1])
    ((_, between),) = find_betweens(program.graph_module.graph).items()
    assert between.spec == BetweenSpec("cat", dim=1, sizes=(6, 5))


def test_an_activation_fuses_only_into_what_nothing_else_reads():
    def body(x, s, v, c):
        y = x + x.trunc()
        return torch.relu(y), y

    kinds = [between.spec.kind for _, between in found(body)[0]]
    assert kinds == ["add", "activation"]


def test_a_function_behind_a_pool_stays_apart():
    kinds = [b.spec.kind for _, b in found(lambda x, s, v, c: F.silu(F.avg_pool2d(x, 2)))[0]]
    assert kinds == ["avg_pool", "activation"]


def test_unknown_kind():
    with pytest.raises(ValueError, match="BetweenSpec: expected kind in"):
        BetweenSpec("sub")
