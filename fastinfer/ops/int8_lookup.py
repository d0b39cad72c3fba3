"""Any unary function of a uint8 tensor as a table."""

from __future__ import annotations

import torch
from torch import Tensor

from fastinfer.ops.spec import OpSpec


def int8_lookup_fake(x: Tensor, table: Tensor) -> Tensor:
    """Shape rule of int8_lookup."""
    return torch.empty_like(x)


def int8_lookup_ref(x: Tensor, table: Tensor) -> Tensor:
    """Return table[x]; x: any shape, uint8; table: [256] uint8; memory format kept."""
    if x.dtype != torch.uint8 or table.dtype != torch.uint8 or list(table.shape) != [256]:
        raise ValueError(
            "int8_lookup: expected x uint8 and table uint8 [256], "
            f"got {x.dtype} and {table.dtype} {list(table.shape)}"
        )
    return torch.empty_like(x).copy_(table[x.long()])


INT8_LOOKUP = OpSpec(
    "int8_lookup", "(Tensor x, Tensor table) -> Tensor", int8_lookup_fake, int8_lookup_ref
)
