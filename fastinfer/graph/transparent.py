"""Graph operations that commute with quantization: they move or select elements, never add them."""

from __future__ import annotations

import operator
from collections.abc import Iterator

import torch
from torch import fx

aten = torch.ops.aten

#: Every output element is one of the input's elements, so uint8 codes pass through unchanged.
#: Padded max-pooling is included: torch pads it with the smallest value of the dtype.
TRANSPARENT_OPS: frozenset[object] = frozenset(
    {
        operator.getitem,
        aten.max_pool2d.default,
        aten.max_pool2d_with_indices.default,
        aten.max_pool1d.default,
        aten.adaptive_max_pool2d.default,
        aten.upsample_nearest2d.default,
        aten.upsample_nearest2d.vec,
        aten.flatten.using_ints,
        aten.unflatten.int,
        aten.view.default,
        aten._unsafe_view.default,
        aten.reshape.default,
        aten.permute.default,
        aten.transpose.int,
        aten.t.default,
        aten.squeeze.default,
        aten.squeeze.dim,
        aten.squeeze.dims,
        aten.unsqueeze.default,
        aten.expand.default,
        aten.slice.Tensor,
        aten.select.int,
        aten.chunk.default,
        aten.split.Tensor,
        aten.split_with_sizes.default,
        aten.unbind.int,
        aten.cat.default,
        aten.stack.default,
        aten.clone.default,
        aten.contiguous.default,
        aten.alias.default,
        aten.dropout.default,
        aten.detach.default,
        aten.pixel_shuffle.default,
        aten.channel_shuffle.default,
        aten.roll.default,
        aten.flip.default,
    }
)


def is_transparent(node: fx.Node) -> bool:
    """Return True when node only moves or selects elements of its tensor arguments."""
    return node.op == "call_function" and node.target in TRANSPARENT_OPS


#: Transparent operators that torch does not run on uint8, or not for every size: max_pool2d of a
#: channels_last uint8 tensor refuses more than 255 elements a sample (torch 2.14.1).
_FLOAT_ONLY = frozenset(
    {
        aten.max_pool1d.default,
        aten.max_pool2d.default,
        aten.max_pool2d_with_indices.default,
        aten.adaptive_max_pool2d.default,
    }
)
UINT8_OPS = TRANSPARENT_OPS - _FLOAT_ONLY


def tensor_inputs(node: fx.Node) -> Iterator[fx.Node]:
    """Yield the tensors a transparent operator moves; its other arguments are sizes."""
    first = node.args[0] if node.args else None
    if isinstance(first, fx.Node):
        yield first
    elif isinstance(first, (list, tuple)):
        yield from (item for item in first if isinstance(item, fx.Node))
