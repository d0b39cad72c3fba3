"""The loop that trains the networks of tasks whose packages carry data but no weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn


class Settings(Protocol):
    """Of a recipe: rows a step, rounds over all rows, AdamW's highest rate and its decay."""

    epochs: int
    batch: int
    rate: float
    decay: float


def train(
    model: nn.Module, count: int, settings: Settings, loss: Callable[[Tensor], Tensor]
) -> None:
    """Train the model by AdamW in one cycle; rows 0..count-1 are shuffled by torch's generator.

    loss: rows [B] int64 -> their error, a scalar.
    """
    steps = settings.epochs * -(-count // settings.batch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.rate, weight_decay=settings.decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.rate, steps)
    for _ in range(settings.epochs):
        for rows in torch.randperm(count).split(settings.batch):
            error = loss(rows)
            optimizer.zero_grad()
            error.backward()
            optimizer.step()
            schedule.step()
