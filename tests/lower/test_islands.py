"""Float operations between int8 layers: in one region, with the same bits as one by one."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from one_region import assert_kept_by_a_file, assert_traced_alike, one_by_one, regions_of
from torch import nn

import fastinfer
from fastinfer.testing.compare import sqnr_db

CHANNELS = 16


class Between(nn.Module):
    """Two convolutions, an operation, and two more."""

    def __init__(self, operation):
        super().__init__()
        c = CHANNELS
        self.a, self.b = nn.Conv2d(3, c, 3, padding=1), nn.Conv2d(c, c, 3, padding=1)
        self.c, self.operation = nn.Conv2d(c, 4, 1), operation

    def forward(self, x):
        y = self.operation(torch.relu(self.a(x)))
        return self.c(torch.relu(self.b(y)))


class NonLocal(nn.Module):
    """Self-attention over an image's pixels, as GANs and segmentation networks have it."""

    def __init__(self, turned):
        super().__init__()
        self.query, self.key = nn.Conv2d(CHANNELS, 4, 1), nn.Conv2d(CHANNELS, 4, 1)
        self.value, self.gain = nn.Conv2d(CHANNELS, CHANNELS, 1), nn.Parameter(torch.ones(1))
        self.turned = turned

    def forward(self, x):
        n, c, h, w = x.shape
        query = self.query(x).view(n, -1, h * w).permute(0, 2, 1).contiguous()
        key, value = (layer(x).view(n, -1, h * w) for layer in (self.key, self.value))
        scores = torch.bmm(query, key).softmax(-1)
        if self.turned:
            y = torch.bmm(value, scores.permute(0, 2, 1))
        else:
            y = torch.bmm(scores, value.transpose(1, 2)).transpose(1, 2)
        return self.gain * y.reshape(n, c, h, w) + x


class Heads(nn.Module):
    """Attention of four heads over an image's pixels."""

    def __init__(self, packed):
        super().__init__()
        self.layer, self.packed = nn.Conv2d(CHANNELS, 3 * CHANNELS, 1), packed

    def forward(self, x):
        n, c, h, w = x.shape
        y = self.layer(x)
        if self.packed:
            y = y.flatten(2).transpose(1, 2).reshape(n, h * w, 3, 4, c // 4).permute(2, 0, 3, 1, 4)
            query, key, value = y.unbind(0)
            y = F.scaled_dot_product_attention(query, key, value)
            y = y.transpose(1, 2).reshape(n, h * w, c).transpose(1, 2)
        else:
            query, key, value = y.reshape(n, 3, 4, c // 4, h * w).unbind(1)
            scores = (query.transpose(-2, -1) @ key) * 0.5
            y = value @ scores.softmax(dim=-1).transpose(-2, -1)
        return y.reshape(n, c, h, w)


def standardized(x):
    spread = x.std(1, keepdim=True) + x.var(1, correction=0)[:, None]
    return (x - x.mean(1, keepdim=True)) / (spread + 1e-5)


def swapped(x):
    n, c, h, w = x.shape
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


class Twice(nn.Module):
    """One layer in two places, whose weight two operations read."""

    def __init__(self):
        super().__init__()
        self.act, self.layer = nn.PReLU(CHANNELS), nn.Conv2d(CHANNELS, CHANNELS, 1)

    def forward(self, x):
        return self.act(self.layer(self.act(x - 0.5)))


def pooled(x):
    y = F.max_pool2d(F.relu(F.instance_norm(x)), 3, 2, 1)
    return y + y.mean((2, 3), keepdim=True)


OPERATIONS = {
    "twice": Twice,
    "pooled": lambda: pooled,
    "enlarged": lambda: lambda x: F.pad(F.interpolate(F.instance_norm(x), scale_factor=2), [1] * 4),
    "mean of all": lambda: lambda x: x * torch.sigmoid(F.adaptive_avg_pool2d(F.relu(x - 1), 1) - 1),
    "normalize": lambda: lambda x: F.normalize(x, dim=1),
    "difference": lambda: lambda x: x - x.mean((2, 3), keepdim=True),
    "without dims": lambda: lambda x: x - x.mean((2, 3))[:, :, None, None],
    "quotient": lambda: lambda x: x / (1 + x.abs().amax(1, keepdim=True)),
    "largest": lambda: lambda x: x - x.amax((2, 3))[:, :, None, None],
    "standardized": lambda: standardized,
    "gates": lambda: lambda x: x * torch.sigmoid(x - x.mean(1, keepdim=True)).add(0.1).sqrt(),
    "tanh": lambda: lambda x: torch.tanh(x - x.mean((2, 3), keepdim=True)) * torch.rsqrt(x + 1),
    "constants": lambda: lambda x: torch.maximum(2 - x, x.mul(0.5).exp().clamp(max=3)).neg(),
    "prelu": lambda: nn.PReLU(CHANNELS),
    "one prelu": lambda: nn.PReLU(),
    "group norm": lambda: nn.GroupNorm(4, CHANNELS),
    "instance norm": lambda: nn.InstanceNorm2d(CHANNELS, affine=True),
    "product": lambda: lambda x: (x.flatten(2) @ x.flatten(2).mT @ x.flatten(2)).view_as(x),
    "attention": lambda: NonLocal(turned=False),
    "turned attention": lambda: NonLocal(turned=True),
    "heads": lambda: Heads(packed=True),
    "explicit heads": lambda: Heads(packed=False),
    "roll": lambda: lambda x: x.roll((1, -1), (2, 3)),
    "reflect": lambda: nn.ReflectionPad2d(2),
    "replicate": lambda: nn.ReplicationPad2d((1, 2, 0, 1)),
    "circular": lambda: lambda x: F.pad(x, (1, 1, 1, 1), mode="circular"),
    "cut": lambda: lambda x: F.pad(x, (1, -2, 0, 3), value=0.5),
    "shuffled pixels": lambda: lambda x: F.pixel_unshuffle(F.pixel_shuffle(x, 2) * 2 - 1, 2),
    "every second": lambda: lambda x: torch.cat([x[..., ::2, ::2], x[..., 1::2, 1::2]], 1)[:, ::2],
    "joined": lambda: lambda x: torch.cat([x.mean(1, keepdim=True), x.amax(1, True), x[:, 2:]], 1),
    "outer": lambda: lambda x: x * x.mean(3, keepdim=True) * x.mean(2, keepdim=True),
    "rows": lambda: lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (CHANNELS,)).permute(0, 3, 1, 2),
    "swapped": lambda: swapped,
}  # fmt: skip


def converted(name):
    torch.manual_seed(0)
    model = Between(OPERATIONS[name]()).eval()
    images = torch.randn(2, 3, 12, 14)
    return model, images, fastinfer.convert(model, (images,), config="int8")


@pytest.mark.parametrize("name", OPERATIONS)
@torch.inference_mode()
def test_is_one_region(name):
    model, images, fast = converted(name)
    report = fastinfer.report(fast)
    assert len(report.regions) == 1, report.notes
    assert report.regions[0].before == {"input": 1} and report.regions[0].after == {"output": 1}
    assert not [note for note in report.notes if "engine not used" in note]
    assert sqnr_db(model(images), fast(images)) > 25


@pytest.mark.parametrize("name", OPERATIONS)
@torch.inference_mode()
def test_other_sizes_have_the_same_bits(name):
    model, _, fast = converted(name)
    for shape in ((1, 3, 12, 14), (5, 3, 16, 8), (2, 3, 6, 10)):
        x = torch.randn(shape)
        value = fast(x)
        assert value.shape == model(x).shape
        assert torch.equal(value, one_by_one(fast, x))
        assert torch.equal(value[:1], fast(x[:1]))  # whatever the batch


@torch.inference_mode()
def test_float_ends_stay_outside():
    """What stands between an int8 layer and the caller is torch's: a region would save nothing."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Softplus(),
                          nn.Flatten(2), nn.Softmax(-1)).eval()  # fmt: skip
    x = torch.randn(1, 3, 9, 9)
    (region,) = regions_of(fastinfer.convert(model, (x,), config="int8"))
    kinds = {step.kind for step in region.region.steps}
    assert not kinds & {"reshape", "permute", "float_unary"}


@torch.inference_mode()
def test_an_image_for_the_caller_is_contiguous():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3)).eval()
    x = torch.randn(2, 3, 9, 11)
    fast = fastinfer.convert(model, (x,), config="int8")
    (region,) = regions_of(fast)
    assert region.region.steps[-1].kind == "contiguous"
    assert fast(x).is_contiguous()


@pytest.mark.parametrize("name", ["prelu", "group norm", "product", "heads", "reflect", "joined"])
@torch.inference_mode()
def test_stays_one_region_through_a_file(name, tmp_path):
    _, images, fast = converted(name)
    inputs = ((images,), (torch.randn(3, 3, 8, 10),))
    assert_kept_by_a_file(fast, tmp_path / "model.fastinfer", inputs)


@pytest.mark.parametrize("name", ["heads", "normalize"])
@torch.inference_mode()
def test_compiles_and_exports(name):
    _, images, fast = converted(name)
    assert_traced_alike(fast, (images,))
