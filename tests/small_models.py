"""Small models of every kind, each with an example and inputs of other sizes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x):
        y = self.norm(self.conv(x))
        y += x
        return self.act(y)


class Residual(nn.Module):
    """conv-bn-add-relu, an option, and a dict of outputs."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.blocks = nn.Sequential(Block(16), Block(16))
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(16, 10)
        self.register_buffer("offset", torch.randn(10))

    def forward(self, x, scale: float = 1.0):
        y = self.blocks(F.relu(self.stem(x)))
        z = self.drop(F.adaptive_avg_pool2d(y, 1).flatten(1))
        return {"logits": self.head(z) * scale + self.offset, "maps": [y]}


class Separable(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1),
            nn.BatchNorm2d(8),
            nn.Hardswish(),
            nn.Conv2d(8, 8, 3, 1, 1, groups=8),
            nn.BatchNorm2d(8),
            nn.ReLU6(inplace=True),
            nn.Conv2d(8, 16, 1),
            nn.SiLU(),
        )
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        return self.head(self.body(x).mean([2, 3]))


class Shuffled(nn.Module):
    """Channels split, joined and shuffled between int8 layers."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.branch = nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.Conv2d(16, 4, 1)

    def forward(self, x):
        a, b = F.relu(self.first(x)).chunk(2, 1)
        y = torch.cat([a, F.relu(self.branch(b))], 1)
        n, c, h, w = y.shape
        y = y.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)
        return self.last(y)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, activation="gelu")

    def forward(self, x):
        return self.layer(x)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(8, 8, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        y, (h, c) = self.rnn(x)
        return self.head(y), h, c


class Tokens(nn.Module):
    """Integer inputs, and a head tied to the embedding."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(50, 16)
        self.mix = nn.Linear(16, 16)
        self.head = nn.Linear(16, 50, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids, mask=None):
        y = torch.tanh(self.mix(self.embed(ids)))
        return self.head(y if mask is None else y * mask.unsqueeze(-1))


class Branching(nn.Module):
    """Control flow on values: no graph."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        return self.a(x) if x.sum() > 0 else self.b(x)


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x):
        return self.layer(F.relu(self.layer(x)))


def image(batch=2, size=16):
    return torch.randn(batch, 3, size, size)


CASES = {
    "residual": (Residual, image, lambda: image(5, 24)),
    "separable": (Separable, image, lambda: image(3, 20)),
    "shuffled": (Shuffled, image, lambda: image(3, 20)),
    "mlp": (
        lambda: nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 4)),
        lambda: torch.randn(1, 8),
        lambda: torch.randn(7, 8),
    ),
    "attention": (Attention, lambda: torch.randn(2, 5, 16), lambda: torch.randn(3, 9, 16)),
    "recurrent": (Recurrent, lambda: torch.randn(2, 5, 8), lambda: torch.randn(3, 4, 8)),
    "tokens": (
        Tokens,
        lambda: torch.randint(50, (2, 6)),
        lambda: torch.randint(50, (3, 4)),
    ),
    "branching": (Branching, lambda: torch.randn(2, 8), lambda: torch.randn(3, 8)),
    "shared": (Shared, lambda: torch.randn(2, 8), lambda: torch.randn(3, 8)),
    "conv1d": (
        lambda: nn.Sequential(nn.Conv1d(4, 8, 3, padding=1), nn.ReLU(), nn.Conv1d(8, 4, 1)),
        lambda: torch.randn(2, 4, 12),
        lambda: torch.randn(3, 4, 9),
    ),
}
#: Worst SQNR in dB of an output on data like the example, whole int8.
FLOOR_DB = 12.0


def seeded(build, seed=0):
    """Return build() in eval mode, its BatchNorms with statistics unlike those of construction."""
    torch.manual_seed(seed)
    model = build().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model


def make(name):
    build, example, other = CASES[name]
    return seeded(build), example(), other()


def leaves(value):
    return torch.utils._pytree.tree_flatten(value)


def sqnr_db(wanted, got):
    error = (wanted - got).pow(2).mean()
    return 10 * torch.log10(wanted.pow(2).mean() / error.clamp_min(1e-20)).item()


def assert_alike(wanted, got, floor=FLOOR_DB):
    (wanted, wanted_spec), (got, got_spec) = leaves(wanted), leaves(got)
    assert wanted_spec == got_spec
    for w, g in zip(wanted, got, strict=True):
        assert w.shape == g.shape and w.dtype == g.dtype
        assert w.is_contiguous() == g.is_contiguous()
        assert w.numel() == 0 or sqnr_db(w, g) > floor
