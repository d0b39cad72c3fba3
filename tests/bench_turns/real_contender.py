"""The process of bench_gpu_models with a network that a CPU times in no time."""

from __future__ import annotations

import torch
from gpu_models.networks import Network
from gpu_models.worker import main
from torch import nn


def tiny() -> Network:
    """Return two convolutions of 8 channels."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1)]
    return Network(nn.Sequential(*layers).eval(), torch.randn(4, 8, 6, 6), _more)


def _more(count: int) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(count, 8, 6, 6)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(networks={"tiny": tiny})
