"""Inference on inputs that require a gradient: an answer, and a clear error in place of one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from fastinfer.types.call import tensors_of


class _Refusal(torch.autograd.Function):
    """(input, *outputs) -> outputs that depend on the input, and have no gradient."""

    @staticmethod
    def forward(x: Tensor, *outputs: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs."""
        return tuple(output.view_as(output) for output in outputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Save nothing."""

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """Raise RuntimeError."""
        raise RuntimeError(
            "backward: a converted model is for inference and has no gradient; detach its input, "
            "or take the gradient of the original model"
        )


def wants_gradient(tensors: Sequence[Tensor]) -> bool:
    """Return True when autograd records and one of the tensors requires a gradient."""
    return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)


def without_gradient(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Return function(*args, **kwargs) on detached tensors.

    A backward through the float tensors of the answer raises RuntimeError, so that what lies before
    the model does not silently go without its gradient. Under torch.compile and torch.export they
    are detached: these would record the error as they trace.
    """
    source = next(t for t in tensors_of((args, kwargs)) if t.requires_grad)
    args, kwargs = pytree.tree_map_only(Tensor, Tensor.detach, (args, kwargs))
    with torch.no_grad():
        answer = function(*args, **kwargs)
    if torch.compiler.is_compiling():
        return answer
    leaves, spec = pytree.tree_flatten(answer)
    places = [i for i, v in enumerate(leaves) if isinstance(v, Tensor) and v.is_floating_point()]
    refused = _Refusal.apply(source, *(leaves[i] for i in places))
    for place, value in zip(places, refused, strict=True):
        leaves[place] = value
    return pytree.tree_unflatten(leaves, spec)
