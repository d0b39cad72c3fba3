"""One op as a value: schema, shape rule, meaning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

NAMESPACE = "fastinfer"


@dataclass(frozen=True)
class OpSpec:
    """An op of torch.ops.fastinfer.

    `schema` is the argument list and result in torch's syntax, without the name. `fake` gives the
    result's shape, dtype and memory format; `reference` is the definition of the op in plain
    PyTorch, and serves every device that has no kernel. `triton` is a launcher or None; it serves
    CUDA tensors where no CUDA kernel was built.
    """

    name: str
    schema: str
    fake: Callable[..., Any]
    reference: Callable[..., Any]
    triton: Callable[..., Any] | None = None

    @property
    def qualified_name(self) -> str:
        """Return namespace::name."""
        return f"{NAMESPACE}::{self.name}"
