"""How a call of the model becomes the flat inputs of its graph, and which calls it answers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils import _pytree as pytree

#: Positional and keyword arguments of a call.
Call = tuple[tuple[Any, ...], dict[str, Any]]


def tensors_of(value: Any) -> list[torch.Tensor]:
    """Return the tensors of a pytree, as a call or its bound arguments, in its order."""
    return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def call(model: Callable[..., Any], inputs: Any) -> Any:
    """Return the model's answer to what a user hands us.

    A dict is keyword arguments, a tuple or list positional ones, anything else the only argument.
    """
    if isinstance(inputs, Mapping):
        return model(**inputs)
    if isinstance(inputs, (tuple, list)):
        return model(*inputs)
    return model(inputs)


@dataclass(frozen=True)
class SizeRange:
    """Sizes one dimension may take: low <= size <= high (None is unbounded).

    Dimensions of equal non-empty `symbol` must be equal in a call.
    """

    low: int
    high: int | None
    symbol: str = ""

    @property
    def is_free(self) -> bool:
        """True when more than one size is allowed."""
        return self.high is None or self.high > self.low

    def __contains__(self, size: int) -> bool:
        return self.low <= size and (self.high is None or size <= self.high)


@dataclass(frozen=True)
class TensorInput:
    """A tensor argument: `name` as in the call ("x", "batch['image']")."""

    name: str
    dtype: torch.dtype
    device: torch.device
    sizes: tuple[SizeRange, ...]

    def describe(self) -> str:
        """Return for example "float32 [*, 3, *, *]"."""
        sizes = ", ".join("*" if size.is_free else str(size.low) for size in self.sizes)
        return f"{str(self.dtype).removeprefix('torch.')} [{sizes}]"


@dataclass(frozen=True)
class Constant:
    """An argument that is no tensor: the graph holds for this value only."""

    name: str
    value: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Constant) and self.holds(other.value)

    def __hash__(self) -> int:
        return hash(self.name)

    def holds(self, value: Any) -> bool:
        """Return True when value is the one the graph was captured with."""
        return type(value) is type(self.value) and bool(value == self.value)


def _always(shapes: Sequence[Sequence[int]]) -> bool:
    return True


@dataclass(frozen=True)
class CallSpec:
    """Signature, flat inputs, output structure and domain of a captured model.

    `guard` gets the shapes of the tensor inputs in order and answers whether the captured graph
    holds for them; `in_spec` is the structure of the bound arguments by name; `contiguous` says of
    each flat output whether it was contiguous on the example.
    """

    signature: inspect.Signature
    in_spec: pytree.TreeSpec
    inputs: tuple[TensorInput | Constant, ...]
    out_spec: pytree.TreeSpec
    guard: Callable[[Sequence[Sequence[int]]], bool] = _always
    contiguous: tuple[bool, ...] = ()

    @property
    def tensor_inputs(self) -> tuple[TensorInput, ...]:
        """The inputs that are placeholders of the graph, in order."""
        return tuple(i for i in self.inputs if isinstance(i, TensorInput))

    def flatten(self, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[Any, ...] | None:
        """Return the graph's inputs for a call, or None when the graph does not know its form.

        Raises TypeError when the arguments do not fit the signature.
        """
        return self.flatten_bound(bind(self.signature, args, kwargs))

    def flatten_bound(self, bound: dict[str, Any]) -> tuple[Any, ...] | None:
        """Return the graph's inputs for arguments by name, or None as `flatten`."""
        leaves, spec = pytree.tree_flatten(bound)
        if spec != self.in_spec:
            return None
        tensors = []
        for leaf, wanted in zip(leaves, self.inputs, strict=True):
            if isinstance(wanted, TensorInput):
                if not isinstance(leaf, torch.Tensor):
                    return None
                tensors.append(leaf)
            elif isinstance(leaf, torch.Tensor) or not wanted.holds(leaf):
                return None
        return tuple(tensors)

    def unflatten(self, outputs: Sequence[Any]) -> Any:
        """Return the model's output structure from the graph's flat outputs."""
        return pytree.tree_unflatten(list(outputs), self.out_spec)

    def accepts(self, shapes: Sequence[Sequence[int]]) -> bool:
        """Return True when the captured graph holds for tensor inputs of these shapes."""
        return self.accepts_sizes(shapes) and self.guard(shapes)

    def accepts_sizes(self, shapes: Sequence[Sequence[int]]) -> bool:
        """Return True when each size is in its range and sizes of one symbol are equal.

        Sizes may be symbolic: then the tool that traces guards what is compared here.
        """
        symbols: dict[str, int] = {}
        for shape, wanted in zip(shapes, self.tensor_inputs, strict=True):
            if len(shape) != len(wanted.sizes):
                return False
            for size, allowed in zip(shape, wanted.sizes, strict=True):
                if size not in allowed:
                    return False
                if allowed.symbol and symbols.setdefault(allowed.symbol, size) != size:
                    return False
        return True

    def on(self, device: torch.device) -> CallSpec:
        """Return the spec for tensors on another device."""
        inputs = tuple(
            replace(i, device=device) if isinstance(i, TensorInput) else i for i in self.inputs
        )
        return replace(self, inputs=inputs)

    @property
    def is_dynamic(self) -> bool:
        """True when some dimension of some input is free."""
        return any(size.is_free for i in self.tensor_inputs for size in i.sizes)


def bind(
    signature: inspect.Signature, args: Sequence[Any], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """Return the arguments of a call by parameter name, defaults filled in.

    Raises TypeError when they do not fit the signature.
    """
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    return dict(bound.arguments)
