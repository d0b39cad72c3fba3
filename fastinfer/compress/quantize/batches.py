"""Calibration data: from what a user hands over to flat inputs of the captured graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fastinfer.types.call import Call

#: (args, kwargs) of a call -> values for the graph's placeholders, in order.
#: None skips the batch.
Flatten = Callable[[tuple[Any, ...], dict[str, Any]], Sequence[Any] | None]


def flatten_in_order(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Sequence[Any]:
    """Return args, then the values of kwargs."""
    return (*args, *kwargs.values())


def _is_label(value: object) -> bool:
    """Return True for what comes second in an (input, label) pair."""
    if isinstance(value, Tensor):
        return not value.is_floating_point() and value.dim() <= 1
    if isinstance(value, (list, tuple)):
        return bool(value) and all(isinstance(v, (int, str)) for v in value)
    return isinstance(value, (int, str))


def batch_call(batch: object, n_inputs: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return (args, kwargs) of one calibration batch.

    batch: a tensor, a tuple or list of arguments, a dict of keyword arguments, or an
    (input, label) pair when the model takes one input.

    Raises:
        TypeError: batch is none of these.
    """
    if isinstance(batch, Tensor):
        return (batch,), {}
    if isinstance(batch, Mapping):
        return (), dict(batch)
    if isinstance(batch, (tuple, list)):
        if n_inputs == 1 and len(batch) == 2 and (_is_label(batch[1]) or batch[1] is None):
            return batch_call(batch[0], n_inputs)
        if len(batch) == 2 and isinstance(batch[0], (tuple, list, Mapping)) and _is_label(batch[1]):
            return batch_call(batch[0], n_inputs)
        return tuple(batch), {}
    raise TypeError(
        "calibration: expected batches that are tensors, tuples, lists or dicts, "
        f"got {type(batch).__name__}"
    )


def check_finite(values: Sequence[Any], index: int) -> None:
    """Raise ValueError, naming the batch, when a float input holds NaN or infinity."""
    for position, value in enumerate(values):
        if isinstance(value, Tensor) and value.is_floating_point():
            if bool(torch.isnan(value).any()):
                raise ValueError(f"calibration: batch {index} input {position} contains NaN")
            if bool(torch.isinf(value).any()):
                raise ValueError(f"calibration: batch {index} input {position} contains infinity")


def read_calls(calibration: Iterable[Any], n_inputs: int) -> Iterator[Call]:
    """Yield (args, kwargs) of every batch.

    Raises:
        ValueError: no batch.
        TypeError: calibration or a batch is of the wrong type.
    """
    if isinstance(calibration, (str, bytes)) or not isinstance(calibration, Iterable):
        raise TypeError(
            f"calibration: expected an iterable of batches, got {type(calibration).__name__}"
        )
    # A tensor is iterable, and its rows would be taken for batches.
    source: Iterable[Any] = (
        [calibration] if isinstance(calibration, (Tensor, Mapping)) else calibration
    )
    empty = True
    for batch in source:
        empty = False
        yield batch_call(batch, n_inputs)
    if empty:
        raise ValueError("calibration: expected at least one batch, got an empty iterable")


def read_batches(
    calibration: Iterable[Any], n_inputs: int, flatten: Flatten = flatten_in_order
) -> Iterator[tuple[Any, ...]]:
    """Yield the flat graph inputs of every batch.

    Raises:
        ValueError: no batch, NaN or infinity in a batch, or a wrong number of inputs.
        TypeError: calibration or a batch is of the wrong type.
    """
    used = 0
    for index, (args, kwargs) in enumerate(read_calls(calibration, n_inputs)):
        flat = flatten(args, kwargs)
        if flat is None:
            continue
        values = tuple(flat)
        if len(values) != n_inputs:
            raise ValueError(
                f"calibration: batch {index}: expected {n_inputs} inputs, got {len(values)}"
            )
        check_finite(values, index)
        used += 1
        yield values
    if not used:
        raise ValueError("calibration: no batch has sizes that the captured graph takes")
