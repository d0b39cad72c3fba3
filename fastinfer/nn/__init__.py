"""Modules that run on packed weights."""

from __future__ import annotations

from fastinfer.nn.in_dtype import InDtype
from fastinfer.nn.int8_conv2d import (
    ConvGeometry,
    Int8Conv1d,
    Int8Conv1dDynamic,
    Int8Conv2d,
    Int8Conv2dDynamic,
)
from fastinfer.nn.int8_linear import Int8Linear, Int8LinearDynamic
from fastinfer.nn.packed_module import PackedModule, repack
from fastinfer.nn.sparse_float import SparseFloat
from fastinfer.nn.weight_only import Bf16, BoundConv, WeightOnly

__all__ = [
    "Bf16",
    "BoundConv",
    "ConvGeometry",
    "InDtype",
    "Int8Conv1d",
    "Int8Conv1dDynamic",
    "Int8Conv2d",
    "Int8Conv2dDynamic",
    "Int8Linear",
    "Int8LinearDynamic",
    "PackedModule",
    "SparseFloat",
    "WeightOnly",
    "repack",
]
