"""Pictures of bars in six places, which a small network learns in a second, and that network."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn import functional as F

from fastinfer.compress.prune import largest_kept
from fastinfer.types.sparsity import named_pattern

CLASSES = 6


def pictures(count, seed):
    """Return ([count, 1, 12, 12] noisy bars, [count] which bar)."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (count,), generator=generator)
    images = torch.randn(count, 1, 12, 12, generator=generator)
    for image, label in zip(images, labels.tolist(), strict=True):
        row = 2 * label
        image[0, row : row + 2] += 0.8
    return images, labels


def batches(count, size, seed):
    return list(zip(*(x.split(size) for x in pictures(count, seed)), strict=True))


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 64, 3, 2, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
        nn.Conv2d(64, 64, 3, 2, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
        nn.Flatten(), nn.Linear(64 * 9, CLASSES),
    )  # fmt: skip


def task_loss(output, batch):
    return F.cross_entropy(output, batch[1])


def accuracy(model, seed=99):
    images, labels = pictures(500, seed)
    with torch.no_grad():
        return float((model(images).argmax(1) == labels).float().mean())


def pruned(model, sparsity=62 / 64):
    """Return a copy with zeros in the second convolution and the head, in train mode."""
    model = copy.deepcopy(model).train()
    with torch.no_grad():
        for weight in (model[3].weight, model[7].weight):
            weight *= largest_kept(weight.square(), named_pattern("nm64", sparsity))
    return model


def zeros(model):
    return {name: p == 0 for name, p in model.named_parameters() if p.dim() > 1}
