"""Small models, one for each structure that channels go through."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


def conv_bn(c_in, c_out, kernel=3, **options):
    conv = nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2, bias=False, **options)
    return nn.Sequential(conv, nn.BatchNorm2d(c_out), nn.ReLU())


def image_model(body, channels, classes=5):
    """Return body between a stem and a head, with statistics that are not 0 and 1."""
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))
    model = nn.Sequential(conv_bn(3, 32), body, *head).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias, std=0.2)
    return model


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = conv_bn(32, 64), conv_bn(64, 32)

    def forward(self, x):
        return functional.relu(x + self.b(self.a(x)))


class Concat(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = conv_bn(32, 16), conv_bn(32, 32, 1), conv_bn(80, 32)

    def forward(self, x):
        return self.c(torch.cat([self.a(x), x, self.b(x)], 1))


class ChunkedGate(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(32, 64, 3, padding=1), conv_bn(32, 32)

    def forward(self, x):
        value, gate = self.a(x).chunk(2, 1)
        return self.b(value * gate.sigmoid())


class Glu(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(32, 64, 3, padding=1), conv_bn(32, 32)

    def forward(self, x):
        return self.b(functional.glu(self.a(x), 1))


class SqueezeExcite(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = conv_bn(32, 64), conv_bn(64, 32)
        self.down, self.up = nn.Conv2d(64, 32, 1), nn.Conv2d(32, 64, 1)

    def forward(self, x):
        x = self.a(x)
        scale = self.up(self.down(x.mean((2, 3), keepdim=True)).relu()).sigmoid()
        return self.b(x * scale)


class Shuffle(nn.Module):
    """Two halves of a grouped pair, shuffled by reshapes with sizes from shapes."""

    def __init__(self):
        super().__init__()
        self.a, self.b = conv_bn(32, 64), conv_bn(64, 32)

    def forward(self, x):
        x = self.a(x)
        b, c, h, w = x.shape
        x = x.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)
        return self.b(x)


class SoftmaxOverChannels(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = conv_bn(32, 64), conv_bn(64, 32)

    def forward(self, x):
        return self.b(self.a(x).softmax(1))


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = conv_bn(32, 32), conv_bn(32, 32)

    def forward(self, x):
        return self.b(self.a(self.a(x)))


class Unknown(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = conv_bn(32, 64), conv_bn(64, 32)

    def forward(self, x):
        x = self.a(x)
        return self.b(x.cummax(1).values)


class HardCoded(nn.Module):
    """Its code has the number of channels as a number."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(32, 64, 3, padding=1), conv_bn(64, 32)

    def forward(self, x):
        x = self.a(x).relu()
        return self.b(x.view(x.shape[0], 32, 2, *x.shape[2:]).flatten(1, 2))


class Flattened(nn.Module):
    """Channels times positions of an 8x8 image."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(conv_bn(3, 32), nn.MaxPool2d(2), conv_bn(32, 32))
        self.hidden, self.head = nn.Linear(32 * 16, 64), nn.Linear(64, 5)

    def forward(self, x):
        return self.head(self.hidden(self.features(x).flatten(1)).relu())


class Attention(nn.Module):
    """Heads by attributes; fused: one linear makes queries, keys and values; manual: no sdpa."""

    def __init__(self, channels, heads, *, fused, manual):
        super().__init__()
        self.heads, self.head_dim = heads, channels // heads
        self.fused, self.manual = fused, manual
        sizes = [3 * channels] if fused else [channels] * 3
        self.inputs = nn.ModuleList(nn.Linear(channels, size) for size in sizes)
        self.output = nn.Linear(channels, channels)

    def forward(self, x):
        b, t, _ = x.shape
        if self.fused:
            qkv = self.inputs[0](x).reshape(b, t, 3, self.heads, self.head_dim)
            q, k, v = qkv.permute(2, 0, 3, 1, 4)
        else:
            shape = (b, t, self.heads, self.head_dim)
            q, k, v = (layer(x).view(shape).transpose(1, 2) for layer in self.inputs)
        if self.manual:
            y = torch.softmax(q @ k.transpose(-2, -1) * self.head_dim**-0.5, -1) @ v
        else:
            y = functional.scaled_dot_product_attention(q, k, v)
        return self.output(y.transpose(1, 2).reshape(b, t, -1))


class Transformer(nn.Module):
    """Token indices [B, 12] to 5 classes; tied: the head is the table of the embedding."""

    def __init__(self, *, fused=False, manual=False, tied=False):
        super().__init__()
        self.table = nn.Embedding(40, 64)
        self.places = nn.Parameter(torch.randn(1, 12, 64) * 0.1)
        self.norms = nn.ModuleList(nn.LayerNorm(64) for _ in range(3))
        self.attention = Attention(64, 8, fused=fused, manual=manual)
        self.mlp = nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 64))
        self.head = nn.Linear(64, 40 if tied else 5, bias=False)
        if tied:
            self.head.weight = self.table.weight

    def forward(self, tokens):
        x = self.table(tokens) + self.places
        x = x + self.attention(self.norms[0](x))
        x = x + self.mlp(self.norms[1](x))
        return self.head(self.norms[2](x).mean(1))


#: Structure -> (model, layers whose outputs must shrink, layers whose outputs must stay).
def image_models():
    blocks = {
        "chain": (nn.Sequential(conv_bn(32, 64), conv_bn(64, 32)), ["1.0.0"], []),
        "residual": (Residual(), ["1.a.0", "1.b.0", "0.0"], []),
        "concat": (Concat(), ["1.b.0", "0.0"], []),
        "chunk": (ChunkedGate(), ["1.a"], []),
        "glu": (Glu(), ["1.a"], []),
        "squeeze-excite": (SqueezeExcite(), ["1.a.0", "1.up"], []),
        "shuffle": (Shuffle(), ["1.a.0"], []),
        "shared": (Shared(), ["1.a.0", "0.0"], []),
        "depthwise": (
            nn.Sequential(conv_bn(32, 64, 1), conv_bn(64, 64, groups=64), conv_bn(64, 32, 1)),
            ["1.0.0", "1.1.0"],
            [],
        ),
        "multiplied depthwise": (
            nn.Sequential(conv_bn(32, 64, groups=32), conv_bn(64, 32, 1)),
            ["0.0", "1.0.0"],
            [],
        ),
        "grouped": (
            nn.Sequential(conv_bn(32, 64, 1), conv_bn(64, 64, groups=4), conv_bn(64, 32, 1)),
            ["1.0.0", "1.1.0"],
            [],
        ),
        "group norm": (
            nn.Sequential(nn.Conv2d(32, 64, 3), nn.GroupNorm(8, 64), nn.PReLU(64), conv_bn(64, 32)),
            ["1.0", "1.3.0"],
            [],
        ),
        "transposed": (
            nn.Sequential(
                nn.ConvTranspose2d(32, 64, 2, 2), nn.BatchNorm2d(64), nn.SiLU(), conv_bn(64, 32)
            ),
            ["1.0"],
            [],
        ),
        "pixel shuffle": (
            nn.Sequential(nn.Conv2d(32, 128, 1), nn.PixelShuffle(2), conv_bn(32, 32)),
            ["1.0"],
            [],
        ),
        "softmax": (SoftmaxOverChannels(), ["1.b.0"], ["1.a.0"]),
        "unknown operator": (Unknown(), ["1.b.0"], ["1.a.0"]),
        "hard-coded": (HardCoded(), ["1.b.0"], ["1.a"]),
        "pools": (
            nn.Sequential(nn.MaxPool2d(2), conv_bn(32, 64), nn.AvgPool2d(2), conv_bn(64, 32)),
            ["0.0", "1.1.0"],
            [],
        ),
    }
    return {name: (image_model(b, 32), shrink, stay) for name, (b, shrink, stay) in blocks.items()}
