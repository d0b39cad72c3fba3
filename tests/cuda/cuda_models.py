"""Models that are converted on a GPU in tests; those without a float part answer the CPU's bits."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class Plain(nn.Module):
    """Convolutions and a linear layer: ops with CUDA kernels from the first."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 32, 3, 2, 1)
        self.second = nn.Conv2d(32, 64, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(64)
        self.shortcut = nn.Conv2d(32, 64, 1)
        self.depthwise = nn.Conv2d(64, 64, 3, 2, 1, groups=64)
        self.head = nn.Conv2d(64, 16, 8)
        self.fc = nn.Linear(16, 10)

    def forward(self, x):
        x = F.relu(self.first(x))
        x = F.relu(self.norm(self.second(x)) + self.shortcut(x))
        x = F.relu6(self.depthwise(x))
        return self.fc(F.relu(self.head(x)).flatten(1))


class Mixed(nn.Module):
    """A residual, pools, a gate, a concatenation and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(32)
        self.block = nn.Conv2d(32, 32, 3, 1, 1)
        self.squeeze = nn.Linear(32, 8)
        self.excite = nn.Linear(8, 32)
        self.wide = nn.Conv2d(64, 48, 1)
        self.fc = nn.Linear(48, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.norm(self.stem(x))), 2)
        y = F.relu(self.block(x) + x)
        gate = torch.sigmoid(
            self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(y, 1).flatten(1))))
        )
        y = y * gate[:, :, None, None]
        z = F.silu(self.wide(torch.cat([x, F.avg_pool2d(y, 3, 1, 1)], 1)))
        return self.fc(F.adaptive_avg_pool2d(z, 1).flatten(1))


class Encoder(nn.Module):
    """Two layers of a transformer, and a classifier of the first token."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(64, 4, 256, dropout=0.0, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.fc = nn.Linear(64, 10)

    def forward(self, x):
        return self.fc(self.layers(x)[:, 0])


class Waiting(nn.Module):
    """Its float part needs a value of the device."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(32, 32)

    def forward(self, x):
        y = F.relu(self.fc(x))
        return y * torch.nonzero(y).shape[0]


def make(name: str) -> nn.Module:
    """Return a seeded model in eval mode; BatchNorms have statistics of some data."""
    torch.manual_seed(0)
    if name in ("resnet18", "mobilenet_v2"):
        import torchvision

        model = getattr(torchvision.models, name)(weights=None, num_classes=10)
    else:
        model = {"plain": Plain, "mixed": Mixed, "encoder": Encoder, "waiting": Waiting}[name]()
    if any(isinstance(m, nn.BatchNorm2d) for m in model.modules()):
        model.train()
        with torch.no_grad():
            model(example(name, 8))
    return model.eval()


def example(name: str, batch: int = 4) -> torch.Tensor:
    """Return an input of a model."""
    generator = torch.Generator().manual_seed(batch)
    shapes = {"plain": (3, 32, 32), "mixed": (3, 32, 32), "encoder": (16, 64), "waiting": (32,)}
    return torch.randn(batch, *shapes.get(name, (3, 64, 64)), generator=generator)
