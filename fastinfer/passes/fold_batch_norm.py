"""fold_batch_norm: a BatchNorm behind a convolution or linear becomes part of its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from fastinfer.graph.match import (
    add_constant,
    arguments,
    constant,
    dims,
    finish,
    nodes_calling,
    replace,
    tensor_name,
)
from fastinfer.program import Program

aten = torch.ops.aten

#: Elements of a weight worked on at a time.
ROW_ELEMENTS = 2**17

_CONVOLUTIONS = frozenset(
    {
        aten.conv1d.default,
        aten.conv1d.padding,
        aten.conv2d.default,
        aten.conv2d.padding,
        aten.conv3d.default,
        aten.conv3d.padding,
    }
)
NORMS = (aten.batch_norm.default, aten._native_batch_norm_legit_no_training.default)


@dataclass(frozen=True)
class Norm:
    """An inference BatchNorm with constant tensors, each [C]; result is the node with its value."""

    result: fx.Node
    mean: torch.Tensor
    var: torch.Tensor
    gamma: torch.Tensor | None
    beta: torch.Tensor | None
    eps: float


def read_norm(graph_module: fx.GraphModule, node: fx.Node) -> Norm | None:
    """Return the BatchNorm a node of NORMS is; None where it is in training or not constant."""
    values, result = arguments(node), node
    if node.target is aten._native_batch_norm_legit_no_training.default:
        users = list(node.users)
        if len(users) != 1 or users[0].args[1:] != (0,):
            return None
        result = users[0]
    elif values["training"]:
        return None
    mean = constant(graph_module, values["running_mean"])
    var = constant(graph_module, values["running_var"])
    gamma, beta = constant(graph_module, values["weight"]), constant(graph_module, values["bias"])
    if mean is None or var is None:
        return None
    optional = [(values["weight"], gamma), (values["bias"], beta)]
    if any(source is not None and tensor is None for source, tensor in optional):
        return None
    return Norm(result, mean, var, gamma, beta, values["eps"])


def fold_batch_norm(program: Program) -> int:
    """Fold inference BatchNorms into the layer before them; return how many.

    With s = gamma / sqrt(var + eps): w' = s w and b' = s (b - mean) + beta, in float64. A norm
    whose input is no layer with constant weights, or is also used elsewhere, stays.

    Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference" (2018), section 3.2.
    """
    graph_module = program.graph_module
    count = 0
    for norm in nodes_calling(graph_module.graph, *NORMS):
        layer = norm.args[0]
        if isinstance(layer, fx.Node) and _is_layer(layer) and len(layer.users) == 1:
            count += _fold(graph_module, layer, norm)
    if count:
        finish(graph_module)
    return count


def _is_layer(node: fx.Node) -> bool:
    if node.op != "call_function":
        return False
    if node.target in _CONVOLUTIONS:
        # An unbatched [C, H, W] output would be normalised over another dimension.
        wanted = {"1d": 3, "2d": 4, "3d": 5}[str(node.target).split(".")[1][-2:]]
        sizes = dims(node)
        return sizes is not None and len(sizes) == wanted
    if node.target is aten.convolution.default:
        return not arguments(node)["transposed"]
    if node.target is aten.linear.default:
        sizes = dims(node)
        return sizes is not None and len(sizes) == 2
    return False


def _fold(graph_module: fx.GraphModule, layer: fx.Node, norm: fx.Node) -> int:
    n, values = read_norm(graph_module, norm), arguments(layer)
    weight = constant(graph_module, values["weight"])
    bias = constant(graph_module, values["bias"])
    if n is None or weight is None or (values["bias"] is not None and bias is None):
        return 0
    folded_weight, folded_bias = folded(weight, bias, n.mean, n.var, n.gamma, n.beta, n.eps)
    name = tensor_name(values["weight"])
    prefix = name.removesuffix("weight")
    new_weight = add_constant(graph_module, layer, name, folded_weight)
    new_bias = add_constant(graph_module, layer, f"{prefix}bias", folded_bias)
    _set_arguments(layer, values, weight=new_weight, bias=new_bias)
    replace(n.result, layer)
    if n.result is not norm:
        graph_module.graph.erase_node(norm)
    return 1


def _set_arguments(node: fx.Node, values: dict[str, Any], **changed: fx.Node) -> None:
    node.args = tuple({**values, **changed}.values())
    node.kwargs = {}


def folded(
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    mean: torch.Tensor,
    var: torch.Tensor,
    gamma: torch.Tensor | None,
    beta: torch.Tensor | None,
    eps: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weight [N, ...] and bias [N] of layer and norm together, in weight's dtype."""
    scale = torch.rsqrt(var.double() + eps)
    if gamma is not None:
        scale = scale * gamma.double()
    shift = -mean.double() if bias is None else bias.double() - mean.double()
    shift = shift * scale
    if beta is not None:
        shift = shift + beta.double()
    columns = scale.reshape(-1, *[1] * (weight.dim() - 1))
    result = torch.empty_like(weight)
    # By rows: the float64 of a whole weight would be new pages for the process each time.
    step = max(1, ROW_ELEMENTS // max(weight.shape[1:].numel(), 1))
    for start in range(0, weight.shape[0], step):
        rows = slice(start, start + step)
        result[rows] = weight[rows].double() * columns[rows]
    return result, shift.to(weight.dtype)
