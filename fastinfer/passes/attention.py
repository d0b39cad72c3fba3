"""Attention: torch's own and that of products and softmax become float_attention."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any

import torch
from torch import fx

from fastinfer.graph.match import add_constant, constant, dims, dtype, replace
from fastinfer.passes.float_calls import new_call

aten = torch.ops.aten
own = torch.ops.fastinfer

_RESHAPES = frozenset({aten.view.default, aten.reshape.default, aten._unsafe_view.default})


def scaled_dot_product_attention(
    graph: fx.Graph, node: fx.Node, v: dict[str, Any]
) -> fx.Node | None:
    """Return float_attention for torch's, None where ours does not compute that."""
    query, key, value, mask = v["query"], v["key"], v["value"], v["attn_mask"]
    sizes = [dims(t) or () for t in (query, key, value)]
    rank, width = len(sizes[0]), sizes[0][-1] if sizes[0] else None
    if v["dropout_p"] != 0 or rank not in (3, 4) or any(s[:-2] != sizes[0][:-2] for s in sizes):
        return None
    if mask is not None:
        mask = _scores_mask(graph, node, mask, (*sizes[0][:-1], sizes[1][-2]))
        if mask is None:
            return None
    scale = v["scale"]
    if scale is None:
        if not isinstance(width, int):
            return None
        scale = width**-0.5
    rest = () if mask is None and not v["is_causal"] else (mask, bool(v["is_causal"]))
    attention = own.float_attention.default
    return new_call(graph, node, attention, query, key, value, float(scale), *rest)


def _scores_mask(graph: fx.Graph, node: fx.Node, mask: Any, scores: tuple[object, ...]) -> Any:
    """Return what is added to scores of that shape, None where it is not known to fit them."""
    sizes = dims(mask)
    if sizes is None or len(sizes) > len(scores):
        return None
    if dtype(mask) is torch.bool:
        hide = (aten.where.Scalar, (mask, 0.0, -inf))
        made = [user for user in mask.users if (user.target, user.args) == hide]
        if not made:  # one for all layers
            with graph.inserting_after(mask):
                made = [new_call(graph, mask, *hide[:1], *hide[1])]
        mask = made[0]
    for _ in range(len(scores) - len(sizes)):
        mask = new_call(graph, node, aten.unsqueeze.default, mask, 0)
    known = (*[1] * (len(scores) - len(sizes)), *sizes)
    fits = all(a == b or a == 1 for a, b in zip(known, scores, strict=True))
    return mask if fits and dtype(mask) is torch.float32 else None


def fuse_attention(graph_module: fx.GraphModule, node: fx.Node) -> int:
    """Make one operation of softmax(q k) v, or of v softmax(q k)^T, of scores for nobody else.

    The scores may be scaled, and have something added: a mask, a bias of positions, both. Returns
    how many were made, at most one.
    """
    graph, (a, b) = node.graph, node.args
    is_turned = _is_turned(b)
    shares: Any = b.args[0] if is_turned else a  # type: ignore[union-attr]
    value: Any = a if is_turned else b
    if not _is_only(shares, own.float_softmax.default):
        return 0
    scores, dim = shares.args
    rank = len(dims(scores) or ())
    found = _scores(graph_module, scores)
    if found is None or rank not in (3, 4) or dim != rank - 1:
        return 0
    query, turned_key = found.product.args
    query, scale = _unscaled(query, found.scale)
    sizes = [dims(t) or () for t in (query, turned_key, value)]
    if any(s[:-2] != sizes[0][:-2] or len(s) != rank for s in sizes):
        return 0
    order = [*range(rank - 2), rank - 1, rank - 2]
    rest: tuple[Any, ...] = ()
    mask: Any
    with graph.inserting_before(node):
        if found.windows is not None:
            mask = add_constant(graph_module, node, f"{node.name}_mask", found.windows)
            mask.meta["val"] = found.windows
            rest = (mask,)
        elif found.mask is not None:
            # Truths that are added are numbers, not a mask.
            is_number = dtype(found.mask) is torch.float32
            scores_sizes = (*sizes[0][:-1], sizes[1][-1])
            mask = _scores_mask(graph, node, found.mask, scores_sizes) if is_number else None
            if mask is None:
                return 0
            rest = (mask,)
        key = new_call(graph, node, aten.permute.default, turned_key, order)
        if is_turned:
            value = new_call(graph, node, aten.permute.default, value, order)
        made = new_call(graph, node, own.float_attention.default, query, key, value, scale, *rest)
        if is_turned:
            made = new_call(graph, node, aten.permute.default, made, order)
    replace(node, made)
    return 1


@dataclass(frozen=True)
class _Scores:
    """Scores are product * scale + mask; windows: a mask of as many samples as it repeats after."""

    product: fx.Node
    scale: float
    mask: Any = None
    windows: torch.Tensor | None = None


def _scores(graph_module: fx.GraphModule, node: Any) -> _Scores | None:
    """Return what scores are made of, None where that is no product."""
    product, scale = _unscaled(node, 1.0)
    if _is_only(product, own.float_matmul.default):
        return _Scores(product, scale)
    if _is_only(node, aten.add.Tensor) and not node.kwargs:
        for part, mask in (node.args, node.args[::-1]):
            product, scale = _unscaled(part, 1.0)
            if _is_only(product, own.float_matmul.default) and dims(part) == dims(node):
                return _Scores(product, scale, mask)
    if _is_only(node, *_RESHAPES):
        return _of_windows(graph_module, node)
    return None


def _of_windows(graph_module: fx.GraphModule, node: fx.Node) -> _Scores | None:
    """Return scores of an image's windows, each with a mask of its own, as Swin makes them.

    (scores.view(images, windows, heads, T, S) + mask).view(images * windows, heads, T, S), where
    scores may have a bias, constant as the mask is.
    """
    added: Any = node.args[0]
    if not _is_only(added, aten.add.Tensor) or added.kwargs:
        return None
    apart, mask_node = added.args
    mask, sizes, wanted = constant(graph_module, mask_node), dims(apart), dims(node)
    if mask is None or not _is_only(apart, *_RESHAPES) or sizes is None or wanted is None:
        return None
    fits = len(sizes) == 5 and len(wanted) == 4 and sizes[2:] == wanted[1:]
    if not fits or mask.dim() != 5 or mask.shape[0] != 1 or mask.shape[1] != sizes[1]:
        return None
    inner = _scores(graph_module, apart.args[0])
    if inner is None or inner.windows is not None or dims(apart.args[0]) != wanted:
        return None
    windows = mask[0].float()
    if inner.mask is not None:
        bias = constant(graph_module, inner.mask)
        if bias is None or bias.dim() > 4 or (bias.dim() == 4 and bias.shape[0] != 1):
            return None
        windows = bias.float() + windows
    return _Scores(inner.product, inner.scale, None, windows.contiguous())


def _unscaled(x: Any, scale: float) -> tuple[Any, float]:
    """Return what x, read once, is a multiple of, and the factor times scale; else x and scale."""
    for target, exponent in ((aten.mul.Tensor, 1), (aten.div.Tensor, -1)):
        if _is_only(x, target) and type(x.args[1]) in (int, float) and x.args[1] != 0:
            return x.args[0], scale * x.args[1] ** exponent
    return x, scale


def _is_only(node: object, *targets: object) -> bool:
    """Return True for a call of one of the targets that one node reads."""
    return isinstance(node, fx.Node) and node.target in targets and len(node.users) == 1


def _is_turned(node: object) -> bool:
    """Return True for a matrix whose two last dimensions are exchanged, for one reader."""
    rank = len(dims(node) or ())
    if rank < 2:
        return False
    if _is_only(node, aten.transpose.int):
        return sorted(d % rank for d in node.args[1:]) == [rank - 2, rank - 1]  # type: ignore
    if _is_only(node, aten.permute.default):
        order = [*range(rank - 2), rank - 1, rank - 2]
        return [d % rank for d in node.args[1]] == order  # type: ignore
    return False
