"""The tensors of an artifact: names, sharing and memory order, to safetensors and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from fastinfer.artifact.errors import ArtifactError
from fastinfer.artifact.values import DTYPES
from fastinfer.config import UnsupportedError


class TensorWriter:
    """Collects tensors by name; one that stands in several places is stored once."""

    def __init__(self) -> None:
        self._names: dict[tuple[Any, ...], str] = {}
        self._kept: list[Tensor] = []
        self._stored: dict[str, Tensor] = {}
        self.table: dict[str, dict[str, Any]] = {}

    def add(self, name: str, tensor: Tensor) -> str:
        """Return the name under which tensor is stored.

        Raises:
            UnsupportedError: it is no plain tensor on cpu or cuda.
        """
        is_plain = type(tensor) in (Tensor, nn.Parameter, nn.Buffer)
        if not is_plain or tensor.device.type not in ("cpu", "cuda"):
            raise UnsupportedError(
                f"save: {name}: expected a plain tensor on cpu or cuda, got "
                f"{type(tensor).__name__} on {tensor.device}"
            )
        if tensor.layout != torch.strided or tensor.is_quantized:
            raise UnsupportedError(f"save: {name}: expected a dense tensor, got {tensor.layout}")
        key = _place(tensor)
        if key in self._names:
            return self._names[key]
        self._kept.append(tensor)  # a place is only its own while it lives
        self._names[key] = name
        row: dict[str, Any] = {
            "dtype": str(tensor.dtype).removeprefix("torch."),
            "shape": list(tensor.shape),
        }
        order = _memory_order(tensor)
        if order is not None:
            row["order"] = order
        self.table[name] = row
        plain = tensor.detach() if order is None else tensor.detach().permute(order)
        self._stored[name] = plain.clone(memory_format=torch.contiguous_format).cpu()
        return name

    def to_bytes(self) -> bytes:
        """Return the safetensors file."""
        try:
            return safetensors.torch.save(self._stored)
        except (ValueError, KeyError, safetensors.SafetensorError) as error:
            raise UnsupportedError(f"save: safetensors: {error}") from error


def _place(tensor: Tensor) -> tuple[Any, ...]:
    """Return what is equal for tensors that are the same values in the same memory."""
    if not tensor.numel():
        return (id(tensor),)
    return (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())


def _memory_order(tensor: Tensor) -> list[int] | None:
    """Return the dimensions from outermost in memory to innermost; None when it is contiguous.

    Convolutions choose other algorithms, with other roundings, for channels_last weights.
    """
    if tensor.is_contiguous():
        return None
    order = sorted(range(tensor.dim()), key=tensor.stride, reverse=True)
    return order if tensor.permute(order).is_contiguous() else None


def read_tensors(data: bytes, table: Mapping[str, Mapping[str, Any]]) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file, which must be those of the table.

    Raises:
        ArtifactError: it is no such file, or a tensor is missing, too many or of another kind.
    """
    try:
        stored = safetensors.torch.load(data)
    except (safetensors.SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise ArtifactError(f"load: tensors: {error}") from error
    for names, said in ((set(table) - set(stored), "lacks"), (set(stored) - set(table), "has too")):
        if names:
            raise ArtifactError(
                f"load: tensors: the file {said} {_some(names)}; save the model again"
            )
    found = {}
    for name, row in table.items():
        tensor = stored[name]
        order = row.get("order")
        if order is not None:
            tensor = tensor.permute([order.index(dim) for dim in range(tensor.dim())])
        wanted = (DTYPES.get(row["dtype"]), list(row["shape"]))
        if (tensor.dtype, list(tensor.shape)) != wanted:
            raise ArtifactError(
                f"load: tensors: {name}: expected {row['dtype']} {row['shape']}, got "
                f"{tensor.dtype} {list(tensor.shape)}"
            )
        found[name] = tensor
    return found


def _some(names: set[str], most: int = 3) -> str:
    shown = ", ".join(sorted(names)[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
