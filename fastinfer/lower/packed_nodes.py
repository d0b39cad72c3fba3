"""Calls of packed modules as steps of the engine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import fx, nn

from fastinfer.graph.match import pair
from fastinfer.lower.lowerings import ThenActivation
from fastinfer.lower.operation import SOURCE, Operation
from fastinfer.lower.region_nodes import rank
from fastinfer.nn import Int8Conv2d, Int8Linear, Int8LinearDynamic
from fastinfer.types import Activation
from fastinfer.types.float_functions import FLOAT_BINARY, FLOAT_UNARY

own = torch.ops.fastinfer


def packed_operation(module: nn.Module, node: fx.Node) -> Operation | None:
    """Return the step of a call of a packed module, None when the engine has none for it."""
    reads = tuple(a for a in node.args if isinstance(a, fx.Node))
    if node.kwargs or len(reads) != len(node.args):
        return None
    if type(module) is ThenActivation:
        operation = packed_operation(module.module, node)
        return None if operation is None else _then(operation, (), module._activation)
    if type(module) is Int8Linear and rank(reads[0]) not in (None, 4):
        arguments = (SOURCE, module.out_features, module.float_output)
        return Operation("int8_linear", reads, arguments, ((module, "packed"),))
    if type(module) is Int8LinearDynamic and rank(reads[0]) is not None:
        source = ((module, "packed"),)
        operation = Operation(
            "int8_linear_dynamic", reads[:1], (SOURCE, module.out_features), source
        )
        return _then(operation, reads[1:], module._activation)
    if type(module) is Int8Conv2d:
        return _convolution(module, reads)
    return None


def _convolution(module: Int8Conv2d, reads: tuple[fx.Node, ...]) -> Operation:
    source = ((module, "packed"),)
    geometry = [
        pair(p) for p in (module.kernel_size, module.stride, module.padding, module.dilation)
    ]
    if module._op is own.int8_depthwise_conv2d.default:
        arguments: tuple[Any, ...] = (SOURCE, *geometry, module.float_output)
        return Operation("int8_depthwise_conv2d", reads, arguments, source)
    arguments = (SOURCE, module.out_features, *geometry, module.groups, module.float_output)
    return Operation("int8_conv2d", reads, arguments, source)


def _then(operation: Operation, residual: tuple[fx.Node, ...], function: Any) -> Operation | None:
    """Return the operation with what comes after it, in float32; None where that has no step."""
    then: list[tuple[str, tuple[fx.Node, ...], tuple[Any, ...]]] = []
    if residual:
        then.append(("float_binary", residual, (FLOAT_BINARY.index("add"), -1, (), 0.0, False)))
    if function is not None:
        numbers = _unary(*function.args)
        if numbers is None:
            return None
        then.append(("float_unary", (), numbers))
    return replace(operation, then=tuple(then))


def _unary(activation: Activation) -> tuple[Any, ...] | None:
    """Return the arguments of the step float_unary that computes an activation, if it can."""
    if activation.name not in FLOAT_UNARY:
        return None
    a, b = (*activation.params, 0.0, 0.0)[:2]
    return (FLOAT_UNARY.index(activation.name), a, b)
