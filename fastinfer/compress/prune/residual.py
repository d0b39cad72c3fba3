"""Layers that write into a residual stream can make up for the error that is in it already."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from fastinfer.graph.match import arguments, dims, order

aten = torch.ops.aten

_ADDS = (aten.add.Tensor, aten.add_.Tensor)
#: Operators that permute or scale, so that an error behind them can be taken back through them.
_LINEAR = frozenset(
    {
        aten.batch_norm.default, aten.dropout.default, aten.feature_dropout.default,
        aten.reshape.default, aten.view.default, aten.permute.default, aten.transpose.int,
        aten.contiguous.default, aten.clone.default, aten.roll.default, aten.mul.Tensor,
        aten.squeeze.dim, aten.unsqueeze.default, aten.flatten.using_ints,
    }
)  # fmt: skip
#: Channels whose gain is below this share of the largest keep the target of their own: the error
#: of the stream, divided by their gain, would ask for weights without bound.
LEAST_GAIN = 0.05


@dataclass(frozen=True)
class Stream:
    """The way from a layer's result to an addition, and the addition's other operand."""

    chain: tuple[fx.Node, ...]
    other: fx.Node


def find_stream(layer: fx.Node) -> Stream | None:
    """Return the stream a layer's node writes into; None where there is none it can mend.

    The other operand must come before the layer: then it is known when the layer is pruned.
    """
    positions = order(layer.graph)
    chain: list[fx.Node] = []
    node = layer
    while len(node.users) == 1:
        (user,) = node.users
        if user.op != "call_function":
            return None
        if user.target in _ADDS:
            return _stream(layer, node, user, chain, positions)
        if user.target not in _LINEAR or not _carries(user, node):
            return None
        chain.append(user)
        node = user
    return None


def _stream(
    layer: fx.Node,
    result: fx.Node,
    add: fx.Node,
    chain: list[fx.Node],
    positions: dict[fx.Node, int],
) -> Stream | None:
    values = arguments(add)
    operands = (values["self"], values["other"])
    other = operands[1] if operands[0] is result else operands[0]
    if not isinstance(other, fx.Node) or other is result or values["alpha"] != 1:
        return None
    known = other.op not in ("get_attr",) and positions[other] < positions[layer]
    same = dims(other) is not None and dims(other) == dims(result)
    return Stream(tuple(chain), other) if known and same else None


def _carries(node: fx.Node, value: fx.Node) -> bool:
    """Return True when the operator only permutes or scales the value by constants."""
    rest = [n for n in node.all_input_nodes if n is not value]
    if node.target is aten.batch_norm.default:
        return node.args[0] is value and not arguments(node)["training"]
    if node.target is aten.mul.Tensor:
        return (bool(rest) and all(n.op == "get_attr" for n in rest)) or isinstance(
            node.args[1], (int, float)
        )
    # What is left are sizes, numbers that other nodes work out.
    return node.args[0] is value and all(not isinstance(n.meta.get("val"), Tensor) for n in rest)


def mended(y: Tensor, error: Tensor, run: Callable[[Tensor], Tensor]) -> Tensor:
    """Return y moved so that run(y) moves by error; run permutes, scales and shifts.

    y: a layer's dense output. error: of the addition's other operand, shaped as run(y).
    """
    with torch.enable_grad():
        variable = y.detach().requires_grad_()
        moved = run(variable)
        # Of A = run's linear part: Aᵀ e and Aᵀ A 1, which for a permutation of scaled entries
        # are gain * e and gain², each where it came from.
        ones = (run(torch.ones_like(y)) - run(torch.zeros_like(y))).detach()
        back, power = _pulled(moved, variable, (error.to(moved.dtype), ones))
    floor = LEAST_GAIN**2 * power.max()
    usable = (power > floor) & (power > 0)
    return y + torch.where(usable, back / power.clamp(min=1e-30), 0)


def _pulled(moved: Tensor, variable: Tensor, vectors: tuple[Any, ...]) -> tuple[Tensor, Tensor]:
    first, second = (
        torch.autograd.grad(moved, variable, vector.expand_as(moved), retain_graph=True)[0]
        for vector in vectors
    )
    return first, second
