"""Convert a model, ask what was done, compare and time it. Needs torch only, no network."""

import torch
from torch import nn

import fastinfer

torch.manual_seed(0)
model = nn.Sequential(
    nn.Conv2d(3, 64, 3, 2, 1), nn.BatchNorm2d(64), nn.ReLU(),
    nn.Conv2d(64, 128, 3, 2, 1), nn.BatchNorm2d(128), nn.ReLU(),
    nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10),
).eval()  # fmt: skip
images = torch.randn(8, 3, 64, 64)

fast = fastinfer.convert(model, images, calibration=[images])
print(fastinfer.report(fast))
print(fastinfer.compare(model, fast, images))
print(fastinfer.benchmark({"eager": model, "fastinfer": fast}, images))
