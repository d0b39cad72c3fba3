"""Detectors in small: a backbone and a head that have a graph, in code that has none."""

from __future__ import annotations

from collections import OrderedDict

import small_models
import torch
import torch.nn.functional as F
from torch import nn

import fastinfer


class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.a = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.b = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x):
        return torch.relu(self.b(torch.relu(self.norm(self.a(x)))) + x)


class Backbone(nn.Module):
    """An image to an OrderedDict of maps."""

    out_channels = 16

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), Block(16), Block(16))

    def forward(self, x):
        fine = self.body(x)
        return OrderedDict(fine=fine, coarse=F.max_pool2d(fine, 2))


class Head(nn.Module):
    """Maps in a list to scores in a dict."""

    def __init__(self):
        super().__init__()
        self.conv, self.score = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 2, 1)

    def forward(self, maps, *, scale=1.0):
        scores = [self.score(torch.relu(self.conv(m))) * scale for m in maps]
        return {"scores": [s.flatten(1) for s in scores]}


class Detector(nn.Module):
    """Keeps as many rows as pass a threshold: no graph of the whole."""

    def __init__(self):
        super().__init__()
        self.backbone, self.head = Backbone(), Head()
        self.box, self.threshold = nn.Linear(2, 4), -1e9
        self.watched = [self.head]

    def forward(self, images, threshold=None):
        assert isinstance(self.backbone, Backbone) and self.backbone.out_channels == 16
        x = torch.stack(images)
        maps = list(self.backbone(x).values())
        scores = torch.cat(self.watched[0](maps)["scores"], 1).reshape(-1, 2)
        chosen = scores[scores[:, 0] > (self.threshold if threshold is None else threshold)]
        if len(chosen) == 0:
            return {"boxes": chosen, "all": scores}
        return {"boxes": self.box(chosen), "all": scores}


class Levels(nn.Module):
    """One head on every level, which a value may end: called once for each size."""

    def __init__(self):
        super().__init__()
        self.backbone, self.head = Backbone(), nn.Sequential(Block(16), nn.Conv2d(16, 2, 1))

    def forward(self, images):
        x, scores = self.backbone(torch.stack(images))["fine"], []
        while bool(x.sum() < 1e9):
            scores.append(self.head(x))
            if x.shape[-1] == 1:
                break
            x = F.max_pool2d(x, 2)
        return scores


def images(batch=1, size=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(3, size, size, generator=generator) for _ in range(batch)]


def seeded(kind=Detector):
    return small_models.seeded(kind, 1)


def convert(model, *args, config="int8", **options):
    """Convert on one image."""
    return fastinfer.convert(model, (images(),), *args, config=config, **options)
