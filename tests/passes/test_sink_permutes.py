"""sink_permutes, fold_scale and use_float_rows: ConvNeXt's blocks in the engine's terms."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from test_float_passes import apply, aten, example, layers, targets
from torch import nn
from torchvision.models.convnext import CNBlockConfig, ConvNeXt

import fastinfer
from fastinfer.passes import STATIC_FLOAT_PASSES
from fastinfer.passes.fold_scale import fold_scale
from fastinfer.passes.make_layers import make_layers
from fastinfer.passes.sink_permutes import sink_permutes
from fastinfer.testing.compare import sqnr_db

own = torch.ops.fastinfer


class Block(nn.Module):
    """A layer norm, linears and an activation on [N, H, W, C], by `forward_last`."""

    def __init__(self, last, back=(0, 3, 1, 2)):
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.a, self.b = nn.LayerNorm(6), nn.Linear(6, 10), nn.Linear(10, 6)
        self.last, self.back = last, back

    def forward(self, x):
        return self.last(self, x.permute(0, 2, 3, 1)).permute(self.back)


PLAIN = Block(lambda m, x: m.b(F.gelu(m.a(m.norm(x)))))
IMAGE = (2, 6, 5, 4)


def test_linears_become_convolutions():
    program, count = apply(PLAIN.eval(), example(*IMAGE), make_layers, sink_permutes)
    assert count == 1
    assert [s.kind for s in layers(program).values()] == ["conv2d", "conv2d"]
    assert targets(program) == [own.float_layer_norm.default, aten.gelu.default]
    x = example(3, 6, 7, 8)
    wanted, (got,) = PLAIN(x), program.graph_module(x)
    assert wanted.shape == got.shape and sqnr_db(wanted, got) > 110
    assert sink_permutes(program) == 0


STAYS = {
    "another way back": Block(PLAIN.last, (0, 2, 1, 3)),
    "something else inside": Block(lambda m, x: m.b(m.a(x.cumsum(1)))),
    "read from outside": Block(lambda m, x: (lambda y: m.b(y) + y.sum())(m.a(x))),
    "two inputs": Block(lambda m, x: m.b(m.a(x)) + x),
    "twice one layer": Block(lambda m, x: m.b(m.a(m.b(m.a(x))))),
}


@pytest.mark.parametrize("name", STAYS)
def test_stays(name):
    program, count = apply(STAYS[name].eval(), example(*IMAGE), make_layers, sink_permutes)
    x = example(*IMAGE)
    if name == "twice one layer":  # each call has a layer of its own
        assert count == 1
    else:
        assert count == 0
        assert all(s.kind == "linear" for s in layers(program).values())
    assert sqnr_db(STAYS[name](x), program.graph_module(x)[0]) > 110


class Scaled(nn.Module):
    """A layer times a constant."""

    def __init__(self, layer, factor):
        super().__init__()
        self.layer = layer
        if isinstance(factor, torch.Tensor):
            self.register_buffer("factor", factor)
        else:
            self.factor = factor

    def forward(self, x):
        return self.factor * self.layer(x)


CONV, LINEAR = nn.Conv2d(6, 3, 3), nn.Linear(4, 3, bias=False)
PER_CHANNEL = torch.tensor([0.5, -2.0, 0.0])
SCALES = {
    "number": (CONV, 0.25, 1),
    "channels": (CONV, PER_CHANNEL.reshape(3, 1, 1), 1),
    "channels with a batch": (CONV, PER_CHANNEL.reshape(1, 3, 1, 1), 1),
    "one": (LINEAR, torch.tensor([3.0]), 1),
    "features": (LINEAR, PER_CHANNEL, 1),
    "columns": (CONV, torch.ones(2), 0),
    "more dimensions": (LINEAR, torch.ones(2, 1, 1, 1, 3), 0),
    "activation before": (nn.Sequential(CONV, nn.ReLU()), 2.0, 0),
}


@pytest.mark.parametrize("name", SCALES)
def test_fold_scale(name):
    layer, factor, wanted = SCALES[name]
    model = Scaled(layer, factor).eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    program, count = apply(model, example(*IMAGE), make_layers, fold_scale)
    assert count == wanted
    x = example(*IMAGE)
    assert sqnr_db(model(x), program.graph_module(x)[0]) > 110
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_convnext_is_one_region():
    """Its own settings but for width and depth; random weights have layer scales of 1e-6."""
    torch.manual_seed(0)
    settings = [CNBlockConfig(24, 40, 2), CNBlockConfig(40, None, 2)]
    model = ConvNeXt(settings, stochastic_depth_prob=0.1, layer_scale=0.3, num_classes=10).eval()
    x = torch.randn(2, 3, 64, 64)
    program, _ = apply(model, x, *STATIC_FLOAT_PASSES)
    assert aten.permute.default not in targets(program) and aten.mul.Tensor not in targets(program)
    with torch.no_grad():
        fast = fastinfer.convert(model, x, config="int8")
        (whole,) = fastinfer.report(fast).regions
        assert whole.before == {"input": 1} and whole.after == {"output": 1}
        other = torch.randn(1, 3, 96, 64)
        assert sqnr_db(model(other), fast(other)) > 15


class Attention(nn.Module):
    """A gate over channels between convolutions."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1), nn.Conv2d(4, 5, 1)

    def forward(self, x):
        gates = torch.softmax(F.relu(self.a(x)), 1)
        return self.c(self.b(gates))


def test_softmax_of_channels_ends_no_region():
    model, x = Attention().eval(), torch.randn(2, 3, 12, 10)
    with torch.no_grad():
        fast = fastinfer.convert(model, x, config="int8")
        (region,) = fastinfer.report(fast).regions
        assert region.before == {"input": 1} and region.after == {"output": 1}
        assert sqnr_db(model(x), fast(x)) > 20


class Head(nn.Module):
    """A layer norm of vectors behind an image's mean."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.norm, self.b = nn.Conv2d(3, 8, 3), nn.LayerNorm(8), nn.Linear(8, 5)

    def forward(self, x):
        return self.b(self.norm(F.relu(self.a(x)).mean((2, 3))))


def test_layer_norm_of_vectors_is_a_step():
    model, x = Head().eval(), torch.randn(4, 3, 12, 10)
    with torch.no_grad():
        fast = fastinfer.convert(model, x, config="int8")
        called = [n.target for n in fast.lowered.graph.nodes if n.op == "call_function"]
        assert own.float_layer_norm.default in called and aten.layer_norm.default not in called
        assert sqnr_db(model(x), fast(x)) > 20


class Segmenter(nn.Module):
    """Scores of pixels, enlarged to the image's size, as segmentation networks end."""

    def __init__(self, size=None, factor=None, behind=None):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 21, 1))
        self.factor, self.behind = factor, behind

    def forward(self, x):
        size = None if self.factor else x.shape[2:]
        y = F.interpolate(self.body(x), size, self.factor, mode="bilinear")
        return {"out": y if self.behind is None else self.behind(y)}


@pytest.mark.parametrize("factor", [None, 2.0])
def test_enlarged_scores_are_a_step(factor):
    model, x = Segmenter(factor=factor).eval(), example(2, 3, 20, 24)
    fast = fastinfer.convert(model, x, config="int8")
    (whole,) = fastinfer.report(fast).regions
    assert whole.before == {"input": 1} and whole.after == {"output": 1}
    kinds = [step.kind for step in fastinfer.report(fast).profile(x, runs=1).regions[0].steps]
    assert kinds[-1] == "float_upsample2d"
    for other in (x, example(1, 3, 31, 45) if factor is None else example(3, 3, 20, 24)):
        wanted, got = model(other)["out"], fast(other)["out"]
        assert got.shape == wanted.shape and got.stride() == wanted.stride()
        assert sqnr_db(wanted, got) > 30


def test_images_that_more_follows_are_torchs():
    model, x = Segmenter(behind=nn.Softmax(2)).eval(), example(2, 3, 20, 24)
    fast = fastinfer.convert(model, x, config="int8")
    called = [n.target for n in fast.lowered.graph.nodes if n.op == "call_function"]
    assert own.float_upsample2d.default not in called
    assert sqnr_db(model(x)["out"], fast(x)["out"]) > 30


class Pooled(nn.Module):
    """Logits of every pixel, and their mean, as SqueezeNet has them."""

    def __init__(self, pool):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 70, 1), nn.ReLU()
        )
        self.pool = pool

    def forward(self, x):
        return self.pool(self.body(x)).flatten(1)


def test_the_mean_of_logits_is_a_step():
    model, x = Pooled(nn.AdaptiveAvgPool2d(1)).eval(), example(2, 3, 20, 20)
    fast = fastinfer.convert(model, x, config="int8")
    kinds = [step.kind for step in fastinfer.report(fast).profile(x, runs=1).regions[0].steps]
    assert "float_global_avg_pool2d" in kinds
    assert sqnr_db(model(x), fast(x)) > 30


def test_other_pools_stay_float():
    model, x = Pooled(nn.AdaptiveAvgPool2d(2)).eval(), example(2, 3, 20, 20)
    fast = fastinfer.convert(model, x, config="int8")
    assert "float_global_avg_pool2d" not in str(fastinfer.report(fast).profile(x, runs=1))
    assert sqnr_db(model(x), fast(x)) > 30


def test_what_float_layers_answer_is_left_to_torch():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                          nn.Linear(8, 16), nn.LayerNorm(16), nn.Softmax(1))  # fmt: skip
    fast = fastinfer.convert(model.eval(), example(2, 3, 9, 9), config="fp32")
    called = [n.target for n in fast.lowered.graph.nodes if n.op == "call_function"]
    assert aten.adaptive_avg_pool2d.default in called and aten.softmax.int in called
    assert not [t for t in called if str(t).startswith("fastinfer.")]
