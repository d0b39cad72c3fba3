"""One way to call a model on whatever the user hands us as inputs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree


def batches(inputs: Any) -> Iterator[Any]:
    """Yield batches: a tensor, tuple or mapping is one batch, anything else an iterable of them.

    Raises:
        TypeError: inputs is neither.
    """
    if isinstance(inputs, (torch.Tensor, tuple, Mapping)):
        yield inputs
    elif isinstance(inputs, Iterable):
        yield from inputs
    else:
        raise TypeError(
            "compare: expected inputs a tensor, tuple, dict or an iterable of these, "
            f"got {type(inputs).__name__}"
        )


def without_label(model: Callable[..., Any], batch: Any) -> Any:
    """Return the batch without its label when it is an (input, label) pair the model cannot take.

    A pair counts as labelled when its second part is integers and `forward` has one
    positional parameter.
    """
    if not isinstance(batch, (tuple, list)) or len(batch) != 2 or not _is_label(batch[1]):
        return batch
    function = model.forward if isinstance(model, nn.Module) else model
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return batch
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    takes_any = any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters)
    positional = sum(p.kind in kinds for p in parameters)
    return batch if takes_any or positional > 1 else batch[0]


def _is_label(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return not value.is_floating_point() and value.dim() <= 1
    return isinstance(value, int) or (
        isinstance(value, (list, tuple)) and all(isinstance(v, int) for v in value)
    )


def batch_size(inputs: Any) -> int:
    """Return the first dimension of the first tensor with one, or 1 when there is none."""
    for leaf in pytree.tree_leaves(inputs):
        if isinstance(leaf, torch.Tensor) and leaf.dim() > 0:
            return int(leaf.shape[0])
    return 1


def named_tensors(value: Any) -> dict[str, torch.Tensor]:
    """Return every tensor of a pytree under a readable path; a bare tensor is "output"."""
    pairs, _ = pytree.tree_flatten_with_path(value)
    return {
        ("output" + pytree.keystr(path)): leaf
        for path, leaf in pairs
        if isinstance(leaf, torch.Tensor)
    }


@contextmanager
def evaluating(*models: Any) -> Iterator[None]:
    """Run with every submodule in eval mode; afterwards each has the mode it had."""
    training = [
        module
        for model in models
        if isinstance(model, nn.Module)
        for module in model.modules()
        if module.training
    ]
    # Flags are set directly: `train()` of a converted module raises on purpose.
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
