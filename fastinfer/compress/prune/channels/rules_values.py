"""Channels through operators that answer value by value, or sum along axes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, fx

from fastinfer.compress.prune.channels.labels import MaybeAxis
from fastinfer.compress.prune.channels.trace import Axes, Trace

#: Operators that join two streams of activations; products gate one by the other.
_SUMS = ("aten::add", "aten::sub", "aten::rsub")


def no_channels(trace: Trace, node: fx.Node) -> Axes:
    """Return a tensor that has no channels of a layer."""
    return (None,) * len(trace.shape(node))


def no_channels_at_all(trace: Trace, node: fx.Node) -> Any:
    """Return a result, of one tensor or several, that has no channels of a layer."""
    value = node.meta.get("val")
    if isinstance(value, (list, tuple)):
        return [(None,) * v.dim() if isinstance(v, Tensor) else () for v in value]
    return no_channels(trace, node)


def pointwise(trace: Trace, node: fx.Node, named: Mapping[str, Any]) -> Axes:
    """Unite the channels of all operands, broadcast."""
    operands = [n for n in node.all_input_nodes if trace.shape(n)]
    axes = broadcast(trace, operands, trace.shape(node), str(node.target))
    schema = getattr(node.target, "_schema", None)
    moving = [n for n in operands if n not in trace.constants]
    if schema is not None and schema.name in _SUMS and len(moving) == 2:
        left, right = (trace.of(n) for n in moving)
        for mine, other, axis in zip(left[::-1], right[::-1], axes[::-1], strict=False):
            if mine is not None and other is not None and mine is not other and axis is not None:
                trace.streams.append(axis)
    return axes


def broadcast(trace: Trace, operands: list[fx.Node], shape: tuple[int, ...], operator: str) -> Axes:
    """Return the axes of a result of this shape, aligned from the right, channels united."""
    result: list[MaybeAxis] = []
    for back in range(1, len(shape) + 1):
        found: MaybeAxis = None
        first = True
        for node in operands:
            sizes = trace.shape(node)
            if back > len(sizes) or (sizes[-back] == 1 and shape[-back] != 1):
                continue
            axis = trace.of(node)[-back]
            reason = f"{operator} joins it with values that are no channels"
            found = axis if first else trace.labels.unite(found, axis, reason)
            first = False
        result.append(found)
    return tuple(result[::-1])


def along(trace: Trace, node: fx.Node, named: Mapping[str, Any]) -> Axes:
    """Let channels stay along the axis that the operator runs along."""
    axes = list(trace.of(node.args[0]))
    dim = int(named["dim"])
    trace.labels.freeze(axes[dim], f"{node.target} over channels")
    axes[dim] = None
    return tuple(axes)


def reduced(trace: Trace, node: fx.Node, named: Mapping[str, Any]) -> Axes:
    """Drop the axes that are summed; their channels stay."""
    axes = trace.of(node.args[0])
    dims = named.get("dim")
    if dims is None or dims == []:
        listed = list(range(len(axes)))
    else:
        listed = [int(d) % len(axes) for d in (dims if isinstance(dims, (list, tuple)) else [dims])]
    for dim in listed:
        trace.labels.freeze(axes[dim], f"{node.target} over channels")
    if named.get("keepdim"):
        return tuple(None if i in listed else a for i, a in enumerate(axes))
    return tuple(a for i, a in enumerate(axes) if i not in listed)


def glu(trace: Trace, node: fx.Node, named: Mapping[str, Any]) -> Axes:
    """Unite each channel of the first half with its gate in the second."""
    axes = list(trace.of(node.args[0]))
    dim = int(named["dim"])
    axis = axes[dim]
    if axis is not None:
        half = len(axis) // 2
        axes[dim] = trace.labels.unite(axis[:half], axis[half:], "gated by what is no channel")
        trace.code_sizes(node, axis)
    return tuple(axes)
