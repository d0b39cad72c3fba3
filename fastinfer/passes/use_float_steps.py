"""use_float_steps: float operations between int8 layers become what the engine has steps for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import torch
from torch import fx

from fastinfer.graph.islands import island_nodes
from fastinfer.graph.layer import Layer
from fastinfer.graph.match import arguments, dims, dtype, finish, layer_of, nodes_calling, replace
from fastinfer.graph.transparent import TRANSPARENT_OPS
from fastinfer.passes.attention import fuse_attention, scaled_dot_product_attention
from fastinfer.passes.float_calls import layer_norm, mean_of_image, new_call, softmax
from fastinfer.program import Program
from fastinfer.types.float_functions import OWN_UNARY, lies_together

aten = torch.ops.aten
own = torch.ops.fastinfer

#: What torch computes to the bit as IEEE 754 says: the engine has steps for these themselves.
_EXACT = frozenset(
    {
        aten.relu.default, aten.hardtanh.default, aten.relu6.default, aten.clamp.default,
        aten.clamp_min.default, aten.clamp_max.default, aten.abs.default, aten.neg.default,
        aten.leaky_relu.default, aten.square.default, aten.reciprocal.default, aten.add.Tensor,
        aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor, aten.maximum.default,
        aten.minimum.default, aten.prelu.default, aten.max_pool2d.default, aten.amax.default,
        aten.amin.default,
        aten.pixel_unshuffle.default, aten.pad.default, aten.expand_as.default,
        aten.view_as.default, aten.mT.default, aten.rsub.Scalar, aten.rsub.Tensor,
    }
)  # fmt: skip

_Rewrite = Callable[[fx.Graph, fx.Node, dict[str, Any]], fx.Node | None]


def _dims(x: object, values: Any) -> list[int]:
    rank = len(dims(x) or ())
    listed = [values] if isinstance(values, int) else list(values or range(rank))
    return [d % rank for d in listed] if rank else []


def _reduce(graph: fx.Graph, node: fx.Node, x: Any, along: Any, keepdim: Any, function: str) -> Any:
    sizes, reduced = dims(x), _dims(x, along)
    if not sizes or not reduced or 0 in reduced or not lies_together(sizes, reduced):
        return None
    made = new_call(graph, node, own.float_reduce.default, x, reduced, function)
    return made if keepdim else new_call(graph, node, aten.squeeze.dims, made, reduced)


def _mean(graph: fx.Graph, node: fx.Node, v: dict[str, Any]) -> fx.Node | None:
    made: fx.Node | None = _reduce(graph, node, v["self"], v["dim"], v["keepdim"], "mean")
    return made


def _sum(graph: fx.Graph, node: fx.Node, v: dict[str, Any]) -> fx.Node | None:
    made: fx.Node | None = _reduce(graph, node, v["self"], v["dim"], v["keepdim"], "sum")
    return made


def _norm(graph: fx.Graph, node: fx.Node, v: dict[str, Any]) -> fx.Node | None:
    if v["ord"] != 2:
        return None
    made: fx.Node | None = _reduce(graph, node, v["self"], v["dim"], v["keepdim"], "norm")
    return made


def _extreme(graph: fx.Graph, node: fx.Node, v: dict[str, Any]) -> fx.Node | None:
    if v["keepdim"]:
        return None
    made = new_call(graph, node, node.target, v["self"], _dims(v["self"], v["dim"]), True)
    return new_call(graph, node, aten.squeeze.dims, made, _dims(v["self"], v["dim"]))


def _deviation(graph: fx.Graph, node: fx.Node, v: dict[str, Any]) -> fx.Node | None:
    """Rewrite std and var along known sizes: of the distances from the mean."""
    x, sizes = v["self"], dims(v["self"])
    reduced = _dims(x, v["dim"])
    counts = [size for d, size in enumerate(sizes or ()) if d in reduced]
    correction = v.get("correction", 1 if v.get("unbiased", True) else 0)
    correction = 1 if correction is None else correction
    if not counts or not all(isinstance(c, int) for c in counts):
        return None
    total = prod(counts)  # type: ignore[arg-type]
    mean = _reduce(graph, node, x, reduced, True, "mean") if total > correction else None
    if mean is None:
        return None
    away = new_call(graph, node, aten.sub.Tensor, x, mean)
    squares = new_call(graph, node, aten.mul.Tensor, away, away)
    summed = _reduce(graph, node, squares, reduced, v["keepdim"], "sum")
    variance = new_call(graph, node, aten.div.Tensor, summed, float(total - correction))
    if node.target in (aten.var.dim, aten.var.correction):
        return variance
    return new_call(graph, node, own.float_unary.default, variance, "sqrt")


def _group_norm(graph: fx.Graph, node: fx.Node, v: dict[str, Any]) -> fx.Node | None:
    x, sizes = v["input"], dims(v["input"])
    if not sizes or len(sizes) != 4 or not isinstance(sizes[1], int):
        return None
    if node.target is aten.instance_norm.default and not v["use_input_stats"]:
        return None
    groups = v.get("num_groups", sizes[1])
    rest = (groups, v["weight"], v["bias"], v["eps"])
    return new_call(graph, node, own.float_group_norm.default, x, *rest)


def _matmul(graph: fx.Graph, node: fx.Node, v: dict[str, Any]) -> fx.Node | None:
    a, b = v["self"], v.get("other", v.get("mat2"))
    sizes = (dims(a) or (), dims(b) or ())
    if len(sizes[0]) != len(sizes[1]) or len(sizes[0]) < 3 or not _batches_meet(*sizes):
        return None
    return new_call(graph, node, own.float_matmul.default, a, b)


def _batches_meet(a: tuple[object, ...], b: tuple[object, ...]) -> bool:
    return a[:-2] == b[:-2] or any(all(n == 1 for n in sizes[:-2]) for sizes in (a, b))


def _unary(graph: fx.Graph, node: fx.Node, v: dict[str, Any]) -> fx.Node | None:
    name = node.target._schema.name.partition("::")[2]  # type: ignore[union-attr]
    assert name in OWN_UNARY
    return new_call(graph, node, own.float_unary.default, v["self"], name)


def _gelu(graph: fx.Graph, node: fx.Node, v: dict[str, Any]) -> fx.Node | None:
    name = "gelu_tanh" if v["approximate"] == "tanh" else "gelu"
    return new_call(graph, node, own.float_unary.default, v["self"], name)


def _rsqrt(graph: fx.Graph, node: fx.Node, v: dict[str, Any]) -> fx.Node | None:
    root = new_call(graph, node, own.float_unary.default, v["self"], "sqrt")
    return new_call(graph, node, aten.reciprocal.default, root)


def _pow(graph: fx.Graph, node: fx.Node, v: dict[str, Any]) -> fx.Node | None:
    if v["exponent"] == 0.5:
        return new_call(graph, node, own.float_unary.default, v["self"], "sqrt")
    return None


#: What torch rounds differently from one CPU to the next becomes ops of ours.
_INEXACT: Mapping[Any, _Rewrite] = {
    aten.mean.dim: _mean,
    aten.sum.dim_IntList: _sum,
    aten.linalg_vector_norm.default: _norm,
    aten.amax.default: _extreme,
    aten.amin.default: _extreme,
    aten.std.dim: _deviation,
    aten.var.dim: _deviation,
    aten.std.correction: _deviation,
    aten.var.correction: _deviation,
    aten.group_norm.default: _group_norm,
    aten.instance_norm.default: _group_norm,
    aten.matmul.default: _matmul,
    aten.bmm.default: _matmul,
    aten.scaled_dot_product_attention.default: scaled_dot_product_attention,
    aten.softmax.int: softmax,
    aten.layer_norm.default: layer_norm,
    aten.adaptive_avg_pool2d.default: mean_of_image,
    aten.sqrt.default: _unary,
    aten.exp.default: _unary,
    aten.sigmoid.default: _unary,
    aten.tanh.default: _unary,
    aten.silu.default: _unary,
    aten.gelu.default: _gelu,
    aten.rsqrt.default: _rsqrt,
    aten.pow.Tensor_Scalar: _pow,
}

#: What changes no element.
_COPIES = frozenset({aten.contiguous.default, aten.clone.default, aten.alias.default})


def use_float_steps(program: Program) -> int:
    """Rewrite the float operations that stand between int8 layers on a CPU; return how many.

    Those that torch does not compute to the same bit everywhere become ops of ours, copies and
    expansions that a broadcast makes needless go. The rest the engine takes as it is.
    """
    graph_module = program.graph_module
    graph, count = graph_module.graph, 0

    def is_candidate(node: fx.Node) -> bool:
        known = node.target in _EXACT or node.target in _INEXACT or node.target in TRANSPARENT_OPS
        return node.op == "call_function" and known

    def is_anchor(node: fx.Node) -> bool:
        if node.op == "call_module":
            return layer_of(graph_module, node, Layer) is None
        return node.op == "call_function" and getattr(node.target, "namespace", "") == "fastinfer"

    inside = island_nodes(graph, is_candidate, is_anchor)
    for node in nodes_calling(graph, own.dequantize.default):
        source = node.all_input_nodes[0]
        if "val" in source.meta:  # that of the float layer it was
            node.meta.setdefault("val", source.meta["val"])
    for node in [n for n in graph.nodes if n in inside]:
        value = node.meta.get("val")
        if not isinstance(value, torch.Tensor) or value.device.type != "cpu":
            continue
        count += _drop(node) if node.target in _COPIES else _rewrite(graph, node)
    expansions = nodes_calling(graph, aten.expand_as.default)
    count += sum(_drop_expansion(node) for node in expansions if node in inside)
    for node in nodes_calling(graph, own.float_matmul.default):
        count += fuse_attention(graph_module, node)
    if count:
        graph.eliminate_dead_code()
        finish(graph_module)
    return count


def _rewrite(graph: fx.Graph, node: fx.Node) -> int:
    rewrite = _INEXACT.get(node.target)
    known = {torch.float32, None}
    if node.target is aten.scaled_dot_product_attention.default:
        known.add(torch.bool)  # its mask
    if rewrite is None or {dtype(n) for n in (node, *node.all_input_nodes)} - known:
        return 0
    with graph.inserting_before(node):
        made = rewrite(graph, node, arguments(node))
    if made is None:
        return 0
    replace(node, made)
    return 1


def _drop(node: fx.Node) -> int:
    source = node.args[0]
    assert isinstance(source, fx.Node)
    node.replace_all_uses_with(source)
    node.graph.erase_node(node)
    return 1


#: Operators that broadcast.
_BROADCAST = frozenset({aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor})


def _drop_expansion(node: fx.Node) -> int:
    """Let x op y.expand_as(x) read y itself."""
    source, like = node.args
    users = list(node.users)
    if any(
        u.target not in _BROADCAST or dims(u) != dims(like) or like not in u.args for u in users
    ):
        return 0
    return _drop(node) if users and isinstance(source, fx.Node) else 0
