"""Networks with operations between their layers that have no int8 form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _resnet18(**options: object) -> nn.Module:
    import torchvision

    return torchvision.models.resnet18(weights=None, **options)


def _with_group_norm() -> nn.Module:
    """Return ResNet-18 with groups of channels normalized, as where batches are small."""
    return _resnet18(norm_layer=partial(nn.GroupNorm, 32))


def _with_prelu() -> nn.Module:
    """Return ResNet-18 with PReLU, as face recognition has it."""
    model = _resnet18()
    model.relu = nn.PReLU(64)
    for stage, channels in ((model.layer1, 64), (model.layer2, 128), (model.layer3, 256),
                            (model.layer4, 512)):  # fmt: skip
        for block in stage:
            block.relu = nn.PReLU(channels)
    return model


class _NonLocal(nn.Module):
    """Self-attention over an image's pixels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query, self.key = (
            nn.Conv2d(channels, channels // 8, 1),
            nn.Conv2d(channels, channels // 8, 1),
        )
        self.value, self.gain = nn.Conv2d(channels, channels, 1), nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        query = self.query(x).view(n, -1, h * w).permute(0, 2, 1)
        key, value = self.key(x).view(n, -1, h * w), self.value(x).view(n, -1, h * w)
        shares = torch.bmm(query, key).softmax(-1)
        y: Tensor = self.gain * torch.bmm(value, shares.permute(0, 2, 1)).view(n, c, h, w) + x
        return y


def _with_attention() -> nn.Module:
    """Return ResNet-18 with self-attention behind its second and third stage."""
    model = _resnet18()
    model.layer2.append(_NonLocal(128))
    model.layer3.append(_NonLocal(256))
    return model


class _Normalized(nn.Module):
    """Response normalization of ConvNeXt V2 behind a residual block."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        norm = torch.linalg.vector_norm(x, 2, (2, 3), keepdim=True)
        return self.gain * (x * (norm / (norm.mean(1, keepdim=True) + 1e-6))) + x


def _with_response_norm() -> nn.Module:
    """Return ResNet-18 with response normalization behind every stage."""
    model = _resnet18()
    for stage, channels in ((model.layer1, 64), (model.layer2, 128), (model.layer3, 256),
                            (model.layer4, 512)):  # fmt: skip
        stage.append(_Normalized(channels))
    return model


class _Style(nn.Module):
    """Layers of a style transfer network: reflected borders, instance norm, a residual."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(channels, channels, 3) for _ in range(2))
        self.norms = nn.ModuleList(nn.InstanceNorm2d(channels, affine=True) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norms[0](self.first(F.pad(x, (1, 1, 1, 1), mode="reflect"))))
        return x + self.norms[1](self.second(F.pad(y, (1, 1, 1, 1), mode="reflect")))


def _style_transfer() -> nn.Module:
    """Return the transformer network of Johnson et al. (2016) with instance norm."""

    def layer(inputs: int, outputs: int, size: int, stride: int = 1) -> list[nn.Module]:
        norm = nn.InstanceNorm2d(outputs, affine=True)
        return [
            nn.ReflectionPad2d(size // 2),
            nn.Conv2d(inputs, outputs, size, stride),
            norm,
            nn.ReLU(),
        ]

    blocks = [_Style(128) for _ in range(5)]
    up = nn.Upsample(scale_factor=2)
    return nn.Sequential(
        *layer(3, 32, 9), *layer(32, 64, 3, 2), *layer(64, 128, 3, 2), *blocks, up,
        *layer(128, 64, 3), up, *layer(64, 32, 3), nn.ReflectionPad2d(4), nn.Conv2d(32, 3, 9),
    )  # fmt: skip


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.relu(self.first(x))) * 0.1


def _super_resolution() -> nn.Module:
    """Return a small EDSR (Lim et al., 2017): four times the pixels, by shuffling channels."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1), *(_Residual(64) for _ in range(8)),
        nn.Conv2d(64, 256, 3, padding=1), nn.PixelShuffle(2), nn.PReLU(64),
        nn.Conv2d(64, 3, 3, padding=1),
    )  # fmt: skip


#: Name -> (builder, shape of one input without the batch).
ISLANDS: Mapping[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "resnet18 group norm": (_with_group_norm, (3, 224, 224)),
    "resnet18 prelu": (_with_prelu, (3, 224, 224)),
    "resnet18 attention": (_with_attention, (3, 224, 224)),
    "resnet18 response norm": (_with_response_norm, (3, 224, 224)),
    "style transfer": (_style_transfer, (3, 128, 128)),
    "super resolution": (_super_resolution, (3, 96, 96)),
}
