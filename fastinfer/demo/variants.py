"""The torch variants of a model that ours is compared with, and the inputs they like."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from fastinfer.demo.results import BF16, CHANNELS_LAST, EAGER


def torch_variants(model: nn.Module) -> dict[str, nn.Module]:
    """Return eager, eager channels_last and torch bf16 by name; model itself is the first."""

    def copied(dtype: torch.dtype) -> nn.Module:
        return copy.deepcopy(model).to(dtype).to(memory_format=torch.channels_last)

    return {EAGER: model, CHANNELS_LAST: copied(torch.float32), BF16: copied(torch.bfloat16)}


def input_for(name: str, x: Tensor) -> Tensor:
    """Return x as a variant likes it; converting is not part of its time."""
    if name in (CHANNELS_LAST, BF16) and x.dim() == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    return x.to(torch.bfloat16) if name == BF16 else x


def has_bf16() -> bool:
    """Return whether torch has bf16 kernels here; elsewhere it emulates them, 20 x slower."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
