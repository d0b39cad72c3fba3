"""What a user hands us as an example, as a call of the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from fastinfer.types.call import Call
from fastinfer.types.finite import all_finite


def example_call(
    what: str, example_inputs: Any, example_kwargs: Mapping[str, Any] | None = None
) -> Call | None:
    """Return (args, kwargs) of the example, None where there is none.

    Args:
        what: the function that was called, for errors.
        example_inputs: a tensor, a tuple or list of positional arguments, or a dict of keyword
            arguments.
        example_kwargs: further keyword arguments.

    Raises:
        TypeError: no tensor in it.
        ValueError: NaN or infinity in it, or an argument given twice.
    """
    kwargs = dict(example_kwargs or {})
    args: tuple[Any, ...] = ()
    if example_inputs is None:
        return ((), kwargs) if kwargs else None
    if isinstance(example_inputs, Mapping):
        both = sorted(set(example_inputs) & set(kwargs))
        if both:
            raise ValueError(f"{what}: {both} in both example_inputs and example_kwargs")
        kwargs = {**example_inputs, **kwargs}
    elif isinstance(example_inputs, (tuple, list)):
        args = tuple(example_inputs)
    else:
        args = (example_inputs,)
    leaves = pytree.tree_leaves((args, kwargs))
    if not any(isinstance(leaf, Tensor) for leaf in leaves):
        raise TypeError(
            f"{what}: example_inputs: expected at least one tensor, got "
            f"{[type(leaf).__name__ for leaf in leaves]}"
        )
    for index, leaf in enumerate(leaves):
        is_float = isinstance(leaf, Tensor) and leaf.is_floating_point()
        if is_float and not all_finite(leaf):
            raise ValueError(f"{what}: example_inputs: tensor {index} holds NaN or infinity")
    return args, kwargs
