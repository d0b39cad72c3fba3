"""Channels through layers with weights, norms and attention."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import fx

from fastinfer.compress.prune.channels.labels import MaybeAxis
from fastinfer.compress.prune.channels.rules_values import no_channels
from fastinfer.compress.prune.channels.trace import Axes, Trace, repeated
from fastinfer.graph.match import tensor_name

Named = Mapping[str, Any]
_INPUT = "a layer reads it with values that are no channels"


def _bias(trace: Trace, named: Named, rows: MaybeAxis) -> None:
    bias = trace.of(named.get("bias"))
    if bias:
        trace.labels.unite(rows, bias[0], "its bias is no parameter of the model")


def _blocks(trace: Trace, axis: MaybeAxis, count: int) -> MaybeAxis:
    """Unite the channels of each of `count` equal blocks and return one label for each."""
    if axis is None:
        return None
    blocks = axis.reshape(count, -1)
    first = blocks[:, 0]
    trace.labels.unite(
        repeated(first, blocks.shape[1] - 1), blocks[:, 1:].reshape(-1), "its group has others"
    )
    return first


def convolution(trace: Trace, node: fx.Node, named: Named) -> Axes:
    """Read channels by columns, make new ones by rows; groups stay whole."""
    x, w = trace.of(named["input"]), trace.of(named["weight"])
    sizes = trace.shape(named["weight"])
    if len(x) != len(w):
        trace.freeze_all(node.all_input_nodes, "a convolution without a batch")
        return no_channels(trace, node)
    groups, rows = int(named["groups"]), w[0]
    for axis in (*x[2:], *w[2:]):
        trace.labels.freeze(axis, "an axis that a filter slides along")
    if groups == 1:
        trace.labels.unite(x[1], w[1], _INPUT)
        trace.consume(w[1])
        trace.produce(rows)
    else:
        # A group of one channel is depthwise; larger ones go as a whole.
        trace.labels.freeze(w[1], "inside a group of a convolution")
        first = _blocks(trace, x[1], groups)
        _blocks(trace, rows, groups)
        trace.labels.unite(rows, repeated(first, sizes[0] // groups), _INPUT)
    _bias(trace, named, rows)
    shape = trace.shape(node)
    trace.multiply(named["weight"], math.prod(shape) // shape[1])
    return (x[0], rows, *(None,) * (len(shape) - 2))


def transposed_convolution(trace: Trace, node: fx.Node, named: Named) -> Axes:
    """As convolution, with the weight's first two axes exchanged."""
    x, w = trace.of(named["input"]), trace.of(named["weight"])
    groups, sizes = int(named["groups"]), trace.shape(named["weight"])
    depthwise = groups == sizes[0] and sizes[1] == 1
    if len(x) != len(w) or not (groups == 1 or depthwise):
        trace.freeze_all(node.all_input_nodes, "a transposed convolution in groups")
        return no_channels(trace, node)
    for axis in (*x[2:], *w[2:]):
        trace.labels.freeze(axis, "an axis that a filter slides along")
    trace.labels.unite(x[1], w[0], _INPUT)
    made = w[0] if depthwise else w[1]
    if not depthwise:
        trace.consume(w[0])
        trace.produce(made)
    _bias(trace, named, made)
    shape = trace.shape(node)
    trace.multiply(named["weight"], math.prod(trace.shape(named["input"])) // sizes[0])
    return (x[0], made, *(None,) * (len(shape) - 2))


def linear(trace: Trace, node: fx.Node, named: Named) -> Axes:
    """Read channels by columns, make new ones by rows."""
    x, w = trace.of(named["input"]), trace.of(named["weight"])
    trace.labels.unite(x[-1], w[1], _INPUT)
    trace.consume(w[1])
    trace.produce(w[0])
    _bias(trace, named, w[0])
    shape = trace.shape(node)
    trace.multiply(named["weight"], math.prod(shape) // shape[-1])
    return (*x[:-1], w[0])


def matmul(trace: Trace, node: fx.Node, named: Named) -> Axes:
    """Treat a product with a matrix of the model's own as linear; others keep rows and columns."""
    a, b = node.args[0], node.args[1]
    x, w = trace.of(a), trace.of(b)
    if b in trace.constants and a not in trace.constants and len(w) == 2:
        return _times(trace, node, a, b)
    if len(x) < 2 or len(w) < 2:
        trace.freeze_all((a, b), "a product with a vector")
        return no_channels(trace, node)
    for axis in (*x[-2:], *w[-2:]):
        trace.labels.freeze(axis, "rows and columns of a product of activations")
    batch = trace.shape(node)[:-2]
    return (*_batch(trace, [a, b], batch), None, None)


def _times(trace: Trace, node: fx.Node, a: object, b: object) -> Axes:
    x, w = trace.of(a), trace.of(b)
    trace.labels.unite(x[-1], w[0], _INPUT)
    trace.consume(w[0])
    trace.produce(w[1])
    shape = trace.shape(node)
    trace.multiply(b, math.prod(shape) // shape[-1])
    return (*x[:-1], w[1])


def addmm(trace: Trace, node: fx.Node, named: Named) -> Axes:
    """Treat a + x w as linear where w is the model's own."""
    bias, a, b = node.args[:3]
    if b not in trace.constants:
        trace.freeze_all((bias, a, b), "a product of activations")
        return no_channels(trace, node)
    axes = _times(trace, node, a, b)
    if len(trace.shape(bias)) == 1:
        trace.labels.unite(axes[-1], trace.of(bias)[0], "its bias is no parameter of the model")
    else:
        trace.freeze_all((bias, node), "added to a matrix")
        trace.labels.freeze(axes[-1], "added to a matrix")
    return axes


def _batch(trace: Trace, nodes: list[Any], shape: tuple[int, ...], skip: int = 2) -> Axes:
    """Unite the axes before the last two of operands that are multiplied batch by batch."""
    result: list[MaybeAxis] = []
    for back in range(skip + 1, skip + len(shape) + 1):
        found: MaybeAxis = None
        first = True
        for node in nodes:
            sizes = trace.shape(node)
            if back > len(sizes) or (sizes[-back] == 1 and shape[skip - back] != 1):
                continue
            axis = trace.of(node)[-back]
            found = axis if first else trace.labels.unite(found, axis, _INPUT)
            first = False
        result.append(found)
    return tuple(result[::-1])


def attention(trace: Trace, node: fx.Node, named: Named) -> Axes:
    """Unite the heads of queries, keys, values and mask; sizes of heads stay."""
    nodes = [named["query"], named["key"], named["value"]]
    if named.get("attn_mask") is not None:
        nodes.append(named["attn_mask"])
    batch = trace.shape(node)[:-2]
    heads = {trace.shape(n)[:-2] for n in nodes[:3]}
    if len(heads) != 1:
        trace.freeze_all(nodes, "attention with unequal numbers of heads")
        return no_channels(trace, node)
    for item in nodes:
        for axis in trace.of(item)[-2:]:
            trace.labels.freeze(axis, "the size of a head")
    return (*_batch(trace, nodes, batch), None, None)


def embedding(trace: Trace, node: fx.Node, named: Named) -> Axes:
    """Make channels by the table's columns; its rows stay."""
    table = trace.of(named["weight"])
    trace.labels.freeze(table[0], "rows of a table are chosen by the input")
    trace.produce(table[1])
    return (*trace.of(named["indices"]), table[1])


def batch_norm(trace: Trace, node: fx.Node, named: Named) -> Axes:
    """Unite a norm's parameters and statistics with the channels of axis 1."""
    axes = list(trace.of(named["input"]))
    for key in ("weight", "bias", "running_mean", "running_var"):
        part = named.get(key)
        if trace.of(part):
            axes[1] = trace.labels.unite(axes[1], trace.of(part)[0], "a norm of what is no channel")
            if key.startswith("running") and isinstance(part, fx.Node) and part.op == "get_attr":
                trace.statistics.add(tensor_name(part))
    return tuple(axes)


def norm_of_last(trace: Trace, node: fx.Node, named: Named) -> Axes:
    """Unite a layer norm's parameters with the channels of the last axis."""
    axes = list(trace.of(named["input"]))
    width = len(named["normalized_shape"])
    for key in ("weight", "bias"):
        part = trace.of(named.get(key))
        if part and width == 1:
            axes[-1] = trace.labels.unite(axes[-1], part[0], "a norm of what is no channel")
        for axis in part if width > 1 else ():
            trace.labels.freeze(axis, "a norm over several axes")
    for axis in axes[-width:] if width > 1 else ():
        trace.labels.freeze(axis, "a norm over several axes")
    if width == 1 and axes[-1] is not None:
        trace.norms[node] = axes[-1]
    return tuple(axes)


def group_norm(trace: Trace, node: fx.Node, named: Named) -> Axes:
    """Keep the groups of the norm whole."""
    axes = list(trace.of(named["input"]))
    for key in ("weight", "bias"):
        part = trace.of(named.get(key))
        if part:
            axes[1] = trace.labels.unite(axes[1], part[0], "a norm of what is no channel")
    _blocks(trace, axes[1], int(named["num_groups"]))
    if not trace.of(named.get("weight")):
        trace.code_sizes(node, axes[1])
    return tuple(axes)


def prelu(trace: Trace, node: fx.Node, named: Named) -> Axes:
    """Unite slopes with the channels of axis 1."""
    axes = list(trace.of(named["self"]))
    slope = trace.of(named["weight"])
    if slope and slope[0] is not None and len(axes) > 1:
        axes[1] = trace.labels.unite(axes[1], slope[0], "a slope of what is no channel")
    return tuple(axes)
