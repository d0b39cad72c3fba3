"""What layers are timed on.

It comes of generators of its own: the user's stay as they are, and torch's own of a GPU refuses
work where somebody's capture of a CUDA graph broke.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def noise(shape: Sequence[int], like: Tensor) -> Tensor:
    """Return normally distributed values of a shape, of a tensor's dtype and device."""
    generator = _generator(like.device)
    return torch.randn(shape, generator=generator, dtype=like.dtype, device=like.device)


def noise_codes(shape: Sequence[int], device: torch.device) -> Tensor:
    """Return uint8 codes of a shape, all alike often."""
    generator = _generator(device)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8, device=device)


def _generator(device: torch.device) -> torch.Generator:
    return torch.Generator(device).manual_seed(0)
