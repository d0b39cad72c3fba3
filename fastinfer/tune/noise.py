"""What layers are timed on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def noise(shape: Sequence[int], like: Tensor) -> Tensor:
    """Return normally distributed values of a shape, with the dtype and on the device of a tensor.

    They come of a generator of their own: the user's stays as it is, and torch's own of a GPU
    refuses work where somebody's capture of a CUDA graph broke.
    """
    generator = torch.Generator(like.device).manual_seed(0)
    return torch.randn(shape, generator=generator, dtype=like.dtype, device=like.device)
