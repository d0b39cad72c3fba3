"""Transformers in one region: linear layers that quantize on the fly, and all between them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from one_region import assert_kept_by_a_file, assert_traced_alike, one_by_one, regions_of
from torch import nn

import fastinfer
from fastinfer.testing.compare import sqnr_db

WIDTH, HEADS = 32, 4


class Block(nn.Module):
    """An encoder or decoder layer by hand; attend answers attention of queries, keys and values."""

    def __init__(self, attend, activation=F.gelu):
        super().__init__()
        self.attend, self.activation = attend, activation
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.up, self.down = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(3 * WIDTH, WIDTH)
        self.before, self.behind = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)

    def forward(self, x, *mask):
        n, t, c = x.shape
        y = self.before(x)
        heads = (
            layer(y).view(n, t, HEADS, c // HEADS).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        y = self.attend(*heads, *mask).transpose(1, 2).reshape(n, t, c)
        x = x + self.out(y)
        return x + self.down(self.activation(self.up(self.behind(x))))


class Joined(nn.Module):
    """Queries, keys and values of one layer, cut apart, as GPT has them."""

    def __init__(self):
        super().__init__()
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, x):
        n, t, c = x.shape
        heads = (y.view(n, t, HEADS, -1).transpose(1, 2) for y in self.qkv(x).split(WIDTH, dim=2))
        y = F.scaled_dot_product_attention(*heads, is_causal=True)
        return self.norm(x + self.out(y.transpose(1, 2).reshape(n, t, c)))


class Windows(nn.Module):
    """Attention in windows of an image in rows, with a bias, as Swin has it."""

    def __init__(self):
        super().__init__()
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.bias = nn.Parameter(torch.randn(1, HEADS, 16, 16))
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, x):
        n, h, w, c = x.shape
        y = torch.roll(self.norm(x), (-2, -2), (1, 2))
        y = y.view(n, h // 4, 4, w // 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, c)
        qkv = self.qkv(y).reshape(-1, 16, 3, HEADS, c // HEADS).permute(2, 0, 3, 1, 4)
        query, key, value = qkv[0] * 0.35, qkv[1], qkv[2]
        hidden = x.new_zeros((16, 16))
        hidden[:8, 8:] = -100.0
        scores = query.matmul(key.transpose(-2, -1)) + self.bias + hidden
        y = scores.softmax(-1).matmul(value).transpose(1, 2).reshape(-1, 16, c)
        y = self.out(y).view(n, h // 4, w // 4, 4, 4, c).permute(0, 1, 3, 2, 4, 5)
        return self.norm(x + torch.roll(y.reshape(n, h, w, c), (2, 2), (1, 2)))


class Patches(nn.Module):
    """Convolutions first, then tokens."""

    def __init__(self):
        super().__init__()
        self.cut, self.block = nn.Conv2d(3, WIDTH, 4, 4), Block(plain)
        self.head = nn.Linear(WIDTH, 10)

    def forward(self, x):
        return self.head(self.block(self.cut(x).flatten(2).transpose(1, 2))[:, 0])


class Stock(nn.Module):
    """PyTorch's own encoder."""

    def __init__(self, masked):
        super().__init__()
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 64, activation="gelu", batch_first=True)
        self.encoder, self.masked = (
            nn.TransformerEncoder(layer, 2, enable_nested_tensor=False),
            masked,
        )

    def forward(self, x, padding=None):
        return self.encoder(x, src_key_padding_mask=padding)


def plain(query, key, value):
    return F.scaled_dot_product_attention(query, key, value)


def masked(query, key, value, mask):
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)


def by_hand(query, key, value):
    return (query @ key.transpose(-1, -2) * 0.3).softmax(-1) @ value


def tokens(n, t):
    return (torch.randn(n, t, WIDTH),)


def with_texts(n, t):
    """Tokens and which of them are there; of the last sample none is."""
    there = torch.arange(t)[None, :] < torch.linspace(t, 0, n)[:, None]
    return (*tokens(n, t), there[:, None, None, :])


def with_numbers(n, t):
    return (*tokens(n, t), torch.randn(t, t))


def with_padding(n, t):
    return (*tokens(n, t), torch.arange(t)[None, :] >= torch.linspace(t, 3, n)[:, None])


def image(n, t):
    return (torch.randn(n, 3, 8, 4 * t),)


def windows(n, t):
    return (torch.randn(n, 8, 4 * t, WIDTH),)


MODELS = {
    "encoder": (lambda: Block(plain), tokens),
    "by hand": (lambda: Block(by_hand), tokens),
    "relu": (lambda: Block(plain, torch.relu), tokens),
    "gelu of tanh": (lambda: Block(plain, lambda x: F.gelu(x, approximate="tanh")), tokens),
    "silu": (lambda: Block(plain, F.silu), tokens),
    "texts": (lambda: Block(masked), with_texts),
    "biased": (lambda: Block(masked), with_numbers),
    "causal": (Joined, tokens),
    "windows": (Windows, windows),
    "patches": (Patches, image),
    "stock": (lambda: Stock(False), tokens),
    "stock with padding": (lambda: Stock(True), with_padding),
}


def converted(name):
    torch.manual_seed(0)
    make, inputs = MODELS[name]
    model, example = make().eval(), inputs(2, 6)
    return model, inputs, fastinfer.convert(model, example, config="int8")


@pytest.mark.parametrize("name", MODELS)
@torch.inference_mode()
def test_is_one_region(name):
    model, inputs, fast = converted(name)
    report = fastinfer.report(fast)
    assert len(report.regions) == 1, report.notes
    assert not {"another region", "Int8LinearDynamic"} & set(report.regions[0].before)
    assert set(report.regions[0].after) <= {"output", "select", "reshape"}
    assert not [note for note in report.notes if "engine not used" in note]
    kinds = [step.kind for step in regions_of(fast)[0].region.steps]
    assert "int8_linear_dynamic" in kinds
    x = inputs(2, 6)
    assert sqnr_db(model(*x), fast(*x)) > 25


@pytest.mark.parametrize("name", MODELS)
@torch.inference_mode()
def test_other_sizes_have_the_same_bits(name):
    model, inputs, fast = converted(name)
    for sizes in ((2, 6), (1, 9), (3, 17)):
        x = inputs(*sizes)
        value = fast(*x)
        assert value.shape == model(*x).shape
        assert torch.equal(value, one_by_one(fast, *x))
        one = [t[:1] if t.shape[0] == sizes[0] else t for t in x]
        assert torch.equal(value[:1], fast(*one))  # whatever the batch


@torch.inference_mode()
def test_a_text_without_tokens_answers_numbers():
    model, inputs, fast = converted("texts")
    x = inputs(3, 7)
    assert not x[1][-1].any()
    assert fast(*x).isfinite().all() and sqnr_db(model(*x), fast(*x)) > 25


@pytest.mark.parametrize("name", ["texts", "causal", "windows", "patches"])
@torch.inference_mode()
def test_stays_one_region_through_a_file(name, tmp_path):
    _, inputs, fast = converted(name)
    assert_kept_by_a_file(fast, tmp_path / "model.fastinfer", (inputs(2, 6), inputs(3, 8)))


@pytest.mark.parametrize("name", ["texts", "causal"])
@torch.inference_mode()
def test_compiles_and_exports(name):
    _, inputs, fast = converted(name)
    assert_traced_alike(fast, inputs(2, 6))


@torch.inference_mode()
def test_truths_that_are_added_are_numbers():
    """scores + truths is no mask: a key gets one more, none goes."""

    def attend(query, key, value):
        scores = query @ key.transpose(-1, -2) + (query[..., :1] > 0)
        return scores.softmax(-1) @ value

    torch.manual_seed(0)
    model, x = Block(attend).eval(), torch.randn(2, 6, WIDTH)
    fast = fastinfer.convert(model, (x,), config="int8")
    assert sqnr_db(model(x), fast(x)) > 25


@torch.inference_mode()
def test_a_profile_counts_a_layers_operations():
    _, inputs, fast = converted("encoder")
    profile = fastinfer.report(fast).profile(inputs(2, 6))
    steps = [step for region in profile.regions for step in region.steps]
    layers = [step for step in steps if step.kind == "int8_linear_dynamic"]
    assert layers[0].multiply_adds == 12 * WIDTH * WIDTH
    assert (
        len([step for step in steps if step.kind == "quantize_rows"]) == 4
    )  # one for three layers
