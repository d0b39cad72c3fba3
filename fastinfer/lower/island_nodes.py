"""Nodes of float islands as steps of the engine.

torch's own operators stand here where IEEE 754 says what the answer is, to the bit, or where
elements only move; passes/use_float_steps.py put ops of ours in the place of the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx

from fastinfer.graph.islands import VIEWS, island_nodes
from fastinfer.graph.match import arguments, pair
from fastinfer.lower.operation import SOURCE, Operation, table_of
from fastinfer.lower.region_nodes import (
    is_uint8,
    is_value,
    rank,
    shape,
)
from fastinfer.types.float_functions import (
    FLOAT_BINARY,
    FLOAT_REDUCE,
    FLOAT_UNARY,
    PAD_MODES,
    lies_together,
    reshape_sizes,
)

aten = torch.ops.aten
own = torch.ops.fastinfer

#: An index behind the end of every dimension.
END = 2**62

_Maker = Callable[[fx.Node, fx.GraphModule], Operation | None]


def _number(value: object) -> float | None:
    return float(value) if type(value) in (int, float) else None


def _is_float(node: object) -> bool:
    return isinstance(node, fx.Node) and is_value(node) and not is_uint8(node)


def _unary(function: str, *numbers: float) -> tuple[Any, ...]:
    a, b = (*numbers, 0.0, 0.0)[:2]
    return (FLOAT_UNARY.index(function), a, b)


def _clamp(low: object, high: object) -> tuple[Any, ...] | None:
    low, high = -math.inf if low is None else low, math.inf if high is None else high
    numbers = (_number(low), _number(high))
    if numbers[0] is None or numbers[1] is None or any(map(math.isnan, numbers)):  # type: ignore[arg-type]
        return None
    return _unary("clamp", *numbers)  # type: ignore[arg-type]


def _leaky_relu(values: dict[str, Any]) -> tuple[Any, ...] | None:
    slope = _number(values["negative_slope"])
    return None if slope is None else _unary("leaky_relu", slope)


#: What a function of one tensor is, by its arguments' names.
_UNARY: Mapping[Any, Callable[[dict[str, Any]], tuple[Any, ...] | None]] = {
    aten.relu.default: lambda _: _clamp(0.0, None),
    aten.hardtanh.default: lambda v: _clamp(v["min_val"], v["max_val"]),
    aten.relu6.default: lambda _: _clamp(0.0, 6.0),
    aten.clamp.default: lambda v: _clamp(v["min"], v["max"]),
    aten.clamp_min.default: lambda v: _clamp(v["min"], None),
    aten.clamp_max.default: lambda v: _clamp(None, v["max"]),
    aten.abs.default: lambda _: _unary("abs"),
    aten.neg.default: lambda _: _unary("neg"),
    aten.leaky_relu.default: _leaky_relu,
    aten.square.default: lambda _: _unary("square"),
    aten.pow.Tensor_Scalar: lambda v: _unary("square") if v["exponent"] == 2 else None,
    aten.reciprocal.default: lambda _: _unary("reciprocal"),
    own.float_unary.default: lambda v: _unary(v["function"]),
}

#: Functions of two tensors, or of one and a number.
_BINARY: Mapping[Any, str] = {
    aten.add.Tensor: "add",
    aten.sub.Tensor: "sub",
    aten.rsub.Scalar: "sub",
    aten.rsub.Tensor: "sub",
    aten.mul.Tensor: "mul",
    aten.div.Tensor: "div",
    aten.maximum.default: "maximum",
    aten.minimum.default: "minimum",
}


def _unary_step(node: fx.Node, _: fx.GraphModule) -> Operation | None:
    x = node.args[0]
    numbers = _UNARY[node.target](arguments(node))
    if numbers is None or not _is_float(x):
        return None
    return Operation("float_unary", (x,), numbers)  # type: ignore[arg-type]


def _binary_step(node: fx.Node, graph_module: fx.GraphModule) -> Operation | None:
    values = arguments(node)
    x, y = values["self"], values["other"]
    if values.get("alpha", 1) != 1:
        return None
    if node.target in (aten.rsub.Scalar, aten.rsub.Tensor):
        x, y = y, x
    return _binary(FLOAT_BINARY.index(_BINARY[node.target]), x, y, graph_module)


def _binary(
    function: int, x: object, y: object, graph_module: fx.GraphModule, sizes: Any = None
) -> Operation | None:
    """Return the step of function(x, y); sizes: a constant y's, where not its own count."""
    constants = [_constant(v, graph_module) for v in (x, y)]
    if all(c is None and _is_float(v) for c, v in zip(constants, (x, y), strict=True)):
        return Operation("float_binary", (x, y), (function, -1, (), 0.0, False))  # type: ignore[arg-type]
    is_reversed = constants[0] is not None
    constant, value = (constants[0], y) if is_reversed else (constants[1], x)
    if constant is None or not _is_float(value) or table_of(value, graph_module) is not None:
        return None
    if isinstance(constant, float):
        arguments = (function, -1, (), constant, is_reversed)
        return Operation("float_binary", (value,), arguments)  # type: ignore[arg-type]
    tensor, source = constant
    if tensor.dtype != torch.float32 or not tensor.is_contiguous():
        return None
    arguments = (function, SOURCE, tuple(sizes or tensor.shape), 0.0, is_reversed)  # type: ignore[assignment]
    return Operation("float_binary", (value,), arguments, (source,))  # type: ignore[arg-type]


def _constant(value: object, graph_module: fx.GraphModule) -> Any:
    """Return a number, or (tensor, source) of a get_attr node; None for anything else."""
    source = table_of(value, graph_module)
    if source is not None:
        return getattr(*source), source
    return _number(value)


def _prelu(node: fx.Node, graph_module: fx.GraphModule) -> Operation | None:
    x, weight = node.args
    count = rank(x) if isinstance(x, fx.Node) else None
    source = table_of(weight, graph_module)
    if not count or source is None:
        return None
    sizes = (getattr(*source).numel(), *[1] * (count - 2)) if count > 1 else (1,)
    return _binary(FLOAT_BINARY.index("prelu"), x, weight, graph_module, sizes)


def _reduce(node: fx.Node, _: fx.GraphModule) -> Operation | None:
    if node.target is own.float_reduce.default:
        x, wanted, function = node.args
    else:
        values = arguments(node)
        x, wanted = values["self"], values["dim"]
        function = "amax" if node.target is aten.amax.default else "amin"
        if not values["keepdim"]:
            return None
    sizes = shape(x) if isinstance(x, fx.Node) else None
    if not _is_float(x) or sizes is None or not wanted:
        return None
    reduced = [d % len(sizes) for d in wanted]  # type: ignore[union-attr]
    if 0 in reduced or not lies_together(sizes, reduced):
        return None
    arguments_ = (FLOAT_REDUCE.index(str(function)), tuple(reduced))
    return Operation("float_reduce", (x,), arguments_)  # type: ignore[arg-type]


def _group_norm(node: fx.Node, graph_module: fx.GraphModule) -> Operation | None:
    x, groups, weight, bias, eps = node.args
    found: list[Any] = [groups]
    sources = []
    for parameter in (weight, bias):
        source = table_of(parameter, graph_module)
        if parameter is not None and source is None:
            return None
        found.append(-1 if source is None else SOURCE)
        sources += [] if source is None else [source]
    return Operation("float_group_norm", (x,), (*found, eps), tuple(sources))  # type: ignore[arg-type]


def _matmul(node: fx.Node, _: fx.GraphModule) -> Operation | None:
    return Operation("float_matmul", tuple(node.args))  # type: ignore[arg-type]


def _attention(node: fx.Node, graph_module: fx.GraphModule) -> Operation | None:
    query, key, value, scale, *rest = node.args
    mask, is_causal = (*rest, *(None, False)[len(rest) :])
    source = table_of(mask, graph_module)
    if source is not None:
        tensor = getattr(*source)
        if tensor.dtype != torch.float32 or not tensor.is_contiguous():
            return None
        arguments_ = (scale, bool(is_causal), SOURCE, tuple(tensor.shape))
        return Operation("float_attention", (query, key, value), arguments_, (source,))  # type: ignore[arg-type]
    reads = (query, key, value) if mask is None else (query, key, value, mask)
    return Operation("float_attention", reads, (scale, bool(is_causal), -1, ()))  # type: ignore[arg-type]


def _permute(node: fx.Node, _: fx.GraphModule) -> Operation | None:
    x, *rest = node.args
    count = rank(x) if isinstance(x, fx.Node) else None
    if count is None:
        return None
    order = list(range(count))
    if node.target is aten.permute.default:
        order = [d % count for d in rest[0]]  # type: ignore[union-attr]
    elif node.target is aten.mT.default:
        order[-2:] = count - 1, count - 2
    elif node.target is aten.transpose.int:
        a, b = (d % count for d in rest)  # type: ignore[operator]
        order[a], order[b] = order[b], order[a]
    else:
        order.reverse()
    return Operation("permute", (x,), (tuple(order),))  # type: ignore[arg-type]


def reshape_like(x: Tensor, like: Tensor | None, sizes: tuple[int, ...]) -> Tensor:
    """Return x reshaped to sizes: -1 what is left, -2 - i the size of dimension i of like, or x."""
    base = x if like is None else like
    return x.reshape(reshape_sizes(x.shape, base.shape, sizes))


def _reshape(node: fx.Node, _: fx.GraphModule) -> Operation | None:
    x, like, sizes = node.args
    reads = (x,) if like is None else (x, like)
    return Operation("reshape", reads, (sizes,))  # type: ignore[arg-type]


def _roll(node: fx.Node, _: fx.GraphModule) -> Operation | None:
    x, shifts, rolled = (*node.args, [])[:3]
    count = rank(x) if isinstance(x, fx.Node) else None
    if not count or not rolled or not all_integers([*shifts, *rolled]):  # type: ignore[misc]
        return None
    where = tuple(d % count for d in rolled)  # type: ignore[union-attr]
    return Operation("roll", (x,), (tuple(shifts), where))  # type: ignore[arg-type]


def all_integers(values: Any) -> bool:
    """Return True when all values are integers that are known."""
    return all(type(v) is int for v in values)


def _pad(node: fx.Node, _: fx.GraphModule) -> Operation | None:
    values = arguments(node)
    x, amounts, mode = values["self"], list(values["pad"]), values["mode"]
    fill = _number(0.0 if values["value"] is None else values["value"])
    if mode not in PAD_MODES or not all_integers(amounts) or fill is None:
        return None
    return Operation("pad", (x,), (tuple(amounts), PAD_MODES.index(mode), fill))


def _slice(node: fx.Node, _: fx.GraphModule) -> Operation | None:
    values = arguments(node)
    x, dim, first, last, step = (values[n] for n in ("self", "dim", "start", "end", "step"))
    count = rank(x)
    first, last = 0 if first is None else first, END if last is None else last
    if not count or not all_integers([first, last, step]):
        return None
    return Operation("strided_slice", (x,), (dim % count, first, min(last, END), step))


def _pixel_shuffle(node: fx.Node, _: fx.GraphModule) -> Operation | None:
    x, factor = node.args
    if rank(x) != 4 or type(factor) is not int:  # type: ignore[arg-type]
        return None
    widens = node.target is aten.pixel_shuffle.default
    return Operation("pixel_shuffle", (x,), (factor if widens else -factor,))  # type: ignore[arg-type]


def _join(node: fx.Node, _: fx.GraphModule) -> Operation | None:
    values = arguments(node)
    parts, dim = values["tensors"], values["dim"]
    count = rank(parts[0])
    if not count or len({(rank(p), is_uint8(p)) for p in parts}) != 1:
        return None
    return Operation("join", tuple(parts), (dim % count,))


def _max_pool(node: fx.Node, _: fx.GraphModule) -> Operation | None:
    values = arguments(node)
    x, kernel = values["self"], values["kernel_size"]
    pairs = (kernel, values["stride"] or kernel, values["padding"], values["dilation"])
    lists = [pair(p) for p in pairs]
    if rank(x) != 4 or not _is_float(x) or not all_integers([n for p in lists for n in p]):
        return None
    return Operation("float_max_pool2d", (x,), (*lists, bool(values["ceil_mode"])))


_MAKERS: Mapping[Any, _Maker] = {
    **dict.fromkeys(_UNARY, _unary_step),
    **dict.fromkeys(_BINARY, _binary_step),
    aten.prelu.default: _prelu,
    aten.amax.default: _reduce,
    aten.amin.default: _reduce,
    own.float_reduce.default: _reduce,
    own.float_group_norm.default: _group_norm,
    own.float_matmul.default: _matmul,
    own.float_attention.default: _attention,
    aten.permute.default: _permute,
    aten.transpose.int: _permute,
    aten.t.default: _permute,
    aten.mT.default: _permute,
    reshape_like: _reshape,
    aten.roll.default: _roll,
    aten.pad.default: _pad,
    aten.slice.Tensor: _slice,
    aten.pixel_shuffle.default: _pixel_shuffle,
    aten.pixel_unshuffle.default: _pixel_shuffle,
    aten.cat.default: _join,
    aten.max_pool2d.default: _max_pool,
}


def island_operation(node: fx.Node, graph_module: fx.GraphModule) -> Operation | None:
    """Return a node as a step of an island, None when it has none."""
    make = _MAKERS.get(node.target) if node.op == "call_function" else None
    if make is None or not is_value(node):
        return None
    made = make(node, graph_module)
    return made if made is not None and all(map(_is_computed, made.reads)) else None


def _is_computed(node: fx.Node) -> bool:
    return is_value(node) and node.op != "get_attr"


def contiguous_operation(node: fx.Node) -> Operation | None:
    """Return the step of what lays a float image out for the caller, None for another node."""
    is_copy = node.op == "call_function" and node.target is aten.contiguous.default
    if not is_copy or node.kwargs or len(node.args) != 1:
        return None
    (x,) = node.args
    return Operation("contiguous", (x,)) if rank(x) == 4 and _is_float(x) else None  # type: ignore[arg-type]


def islands(graph_module: fx.GraphModule, is_step: Callable[[fx.Node], bool]) -> set[fx.Node]:
    """Return the nodes of a graph that are steps of islands; is_step: a step anywhere."""
    return island_nodes(
        graph_module.graph,
        lambda n: island_operation(n, graph_module) is not None,
        is_step,
        VIEWS | {reshape_like},
    )
