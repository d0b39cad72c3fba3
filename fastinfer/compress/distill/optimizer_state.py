"""An optimizer's state as named tensors and JSON values, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from fastinfer.compress.distill.checkpoint import CheckpointError

_PLAIN = (int, float, bool, str, type(None))


def pack_optimizer(optimizer: Optimizer) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return (JSON values, tensors) of `optimizer.state_dict()`.

    Raises:
        CheckpointError: its state has something else than tensors, numbers, text and lists.
    """
    tensors: dict[str, Tensor] = {}

    def pack(value: Any, place: str) -> Any:
        if isinstance(value, Tensor):
            tensors[place] = value
            return {"tensor": place}
        if isinstance(value, (list, tuple)):
            items = [pack(entry, f"{place}/{i}") for i, entry in enumerate(value)]
            return {"tuple": items} if isinstance(value, tuple) else items
        if isinstance(value, Mapping):
            keyed = [[key, pack(entry, f"{place}/{key}")] for key, entry in value.items()]
            if all(isinstance(key, (int, str)) for key, _ in keyed):
                return {"dict": keyed}
        elif isinstance(value, _PLAIN):
            return value
        raise CheckpointError(
            f"checkpoint: optimizer: expected a state of tensors and numbers, got "
            f"{type(value).__name__} at {place} of {type(optimizer).__name__}"
        )

    return pack(optimizer.state_dict(), "optimizer"), tensors


def unpack_optimizer(
    optimizer: Optimizer, packed: dict[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Give an optimizer of the same kind and parameters the state that was packed.

    Raises:
        CheckpointError: it has other parameter groups.
    """

    def unpack(value: Any) -> Any:
        if isinstance(value, list):
            return [unpack(entry) for entry in value]
        if not isinstance(value, dict):
            return value
        if "tensor" in value:
            return tensors[value["tensor"]]
        if "tuple" in value:
            return tuple(unpack(entry) for entry in value["tuple"])
        return {key: unpack(entry) for key, entry in value["dict"]}

    try:
        optimizer.load_state_dict(unpack(packed))
    except (KeyError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"checkpoint: optimizer: expected the state of {type(optimizer).__name__} with these "
            f"parameters: {error}"
        ) from error
