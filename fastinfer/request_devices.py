"""Where the tensors of a call of `convert` are: one device, on which there are kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from fastinfer.runtime import require_cuda_kernels

#: What a tensor is called, and where it is.
Place = tuple[str, torch.device]


def places_of(model: nn.Module, call: Any) -> list[Place]:
    """Return the parameters and buffers of a model and the tensors of its example call."""
    named = [*model.named_parameters(), *model.named_buffers()]
    places = [(f"model: {name}", tensor.device) for name, tensor in named]
    leaves = pytree.tree_leaves(call)
    tensors = [(i, leaf) for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
    return places + [(f"example_inputs: tensor {i}", tensor.device) for i, tensor in tensors]


def check_devices(places: Sequence[Place]) -> torch.device:
    """Return the one device of all places; cpu where there are none.

    Raises:
        ValueError: they are on several devices, or on one that is neither cpu nor cuda.
        RuntimeError: they are on a GPU that this torch does not see, or without kernels for it.
    """
    if not places:
        return torch.device("cpu")
    first, device = places[0]
    for name, other in places:
        if other.type not in ("cpu", "cuda"):
            raise ValueError(
                f"convert: {name}: expected a tensor on cpu or cuda, got one on {other}; "
                "move the model and its example to one of these first"
            )
        if other != device:
            raise ValueError(
                f"convert: {name}: expected all tensors on one device, {device} as {first}, got "
                f"one on {other}; {_fix(name, device, other)}"
            )
    if device.type == "cuda":
        _check_gpu(device)
    return device


def _fix(name: str, device: torch.device, other: torch.device) -> str:
    if name.startswith("example_inputs"):
        return f"move it with .to({str(device)!r}), or the model with model.to({str(other)!r})"
    return f"move the model with model.to({str(device)!r})"


def _check_gpu(device: torch.device) -> None:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count == 0 or (device.index or 0) >= count:
        raise RuntimeError(
            f"convert: model: expected a GPU that torch sees, got tensors on {device}, and torch "
            f"sees {count}; call model.cpu() and convert it there"
        )
    try:
        require_cuda_kernels()
    except RuntimeError as error:
        raise RuntimeError(
            f"convert: model: expected CUDA kernels for a model on {device}, got none: {error}; or "
            "call model.cpu() and convert it there"
        ) from error
