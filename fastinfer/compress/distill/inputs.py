"""From a loader's batch to the call of a model."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from fastinfer.types.call import Call

#: batch -> what the model is called with: a tensor, a tuple or a dict.
Inputs = Callable[[Any], Any]
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class BatchReader:
    """Says which part of a batch the model is called with.

    A tensor is the only argument. Of a dict the model gets what its forward has names for, of a
    tuple as many values as forward requires: of (image, label) the image. `inputs` takes the place
    of these rules.
    """

    def __init__(self, what: str, model: nn.Module, inputs: Inputs | None) -> None:
        if inputs is not None and not callable(inputs):
            raise TypeError(f"{what}: inputs: expected a function of a batch, got {inputs!r}")
        self._what, self._inputs = what, inputs
        parameters = inspect.signature(model.forward).parameters.values()
        positional = [p for p in parameters if p.kind in _POSITIONAL]
        self._required = sum(p.default is inspect.Parameter.empty for p in positional)
        self._most = len(positional)
        self._takes_all = any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters)
        self._names = (
            None
            if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
            else {p.name for p in parameters}
        )

    def call(self, batch: Any) -> Call:
        """Return (args, kwargs) of the model's call.

        Raises:
            ValueError: a tuple of which it is not clear what are inputs and what labels.
            TypeError: batch is no tensor, tuple, list or dict.
        """
        if self._inputs is not None:
            return _as_call(self._what, self._inputs(batch))
        if isinstance(batch, Mapping):
            names = self._names
            return (), {k: v for k, v in batch.items() if names is None or k in names}
        if not isinstance(batch, (tuple, list)):
            return _as_call(self._what, batch)
        if batch and isinstance(batch[0], (tuple, list, Mapping)):
            return _as_call(self._what, batch[0])  # ((ids, mask), label)
        return self._of_tuple(tuple(batch)), {}

    def _of_tuple(self, batch: tuple[Any, ...]) -> tuple[Any, ...]:
        wanted = max(self._required, 1)
        is_plain = self._most <= wanted and not self._takes_all
        if len(batch) == wanted or (is_plain and len(batch) > wanted):
            return batch[:wanted]
        if len(batch) == wanted + 1 and _is_label(batch[-1]):
            return batch[:wanted]
        raise ValueError(
            f"{self._what}: loader: expected batches of which it is clear what the model is called "
            f"with, got a tuple of {len(batch)} where forward requires {self._required} and takes "
            f"{'any number' if self._takes_all else self._most}; pass inputs=lambda batch: "
            "batch[0], say"
        )


def _is_label(value: object) -> bool:
    return not isinstance(value, Tensor) or (not value.is_floating_point() and value.dim() <= 1)


def _as_call(what: str, value: Any) -> Call:
    if isinstance(value, Tensor):
        return (value,), {}
    if isinstance(value, Mapping):
        return (), dict(value)
    if isinstance(value, (tuple, list)):
        return tuple(value), {}
    raise TypeError(
        f"{what}: loader: expected batches that are tensors, tuples, lists or dicts, got "
        f"{type(value).__name__}"
    )


def to_device(value: Any, device: torch.device) -> Any:
    """Return a batch with its tensors on the device."""
    if isinstance(value, Mapping):  # a tokenizer's result is one that pytrees do not know
        return {name: to_device(entry, device) for name, entry in value.items()}
    return pytree.tree_map(
        lambda x: x.to(device, non_blocking=True) if isinstance(x, Tensor) else x, value
    )


def check_loader(what: str, argument: str, loader: object) -> Iterable[Any]:
    """Return an iterable of batches that can be read again and again.

    Raises:
        TypeError: it is none, a single batch, or a generator.
    """
    if isinstance(loader, (Tensor, str, bytes, Mapping)) or not isinstance(loader, Iterable):
        raise TypeError(
            f"{what}: {argument}: expected an iterable of batches, got {type(loader).__name__}; "
            "put a single batch in a list"
        )
    if isinstance(loader, Iterator):
        raise TypeError(
            f"{what}: {argument}: expected an iterable that can be read once per epoch, got "
            f"{type(loader).__name__}, which is used up by the first; pass list(...) of it"
        )
    return loader


def first_batch(what: str, argument: str, loader: Iterable[Any]) -> Any:
    """Return the first batch; ValueError when there is none."""
    for batch in loader:
        return batch
    raise ValueError(f"{what}: {argument}: expected at least one batch, got an empty iterable")
