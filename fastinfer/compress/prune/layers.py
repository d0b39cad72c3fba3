"""Which layers of a captured graph can be pruned, and why the others stay dense."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any

import torch
from torch import Tensor, fx

from fastinfer.compress.prune.geometry import Geometry
from fastinfer.graph.match import arguments, constant, dims, order, tensor_name

aten = torch.ops.aten

#: Inputs of a channel below which a layer stays dense: few weights, and no kernel gains from them.
LEAST_INPUTS = 64
_CONVOLUTIONS = {
    aten.conv1d.default: 1,
    aten.conv1d.padding: 1,
    aten.conv2d.default: 2,
    aten.conv2d.padding: 2,
}
_PRODUCTS = (aten.matmul.default, aten.mm.default)
_WEIGHTED = (
    *_CONVOLUTIONS, *_PRODUCTS, aten.linear.default, aten.addmm.default, aten.convolution.default,
    aten.conv3d.default, aten.conv_transpose1d.default, aten.conv_transpose2d.input,
)  # fmt: skip
#: Between a last layer and the output these change nothing that pruning should spare.
_HEAD_OPS = frozenset(
    {
        "view", "reshape", "_unsafe_view", "flatten", "permute", "transpose", "squeeze",
        "unsqueeze", "softmax", "log_softmax", "sigmoid", "clone", "contiguous", "to", "getitem",
        "select", "slice", "upsample_bilinear2d", "upsample_nearest2d", "t", "dropout",
    }
)  # fmt: skip


@dataclass(frozen=True)
class LayerCall:
    """One call of a layer: its node, the nodes of its input, weight and bias, and its geometry."""

    node: fx.Node
    source: fx.Node
    weight: fx.Node
    bias: fx.Node | None
    geometry: Geometry


@dataclass(frozen=True)
class PrunableLayer:
    """A layer with a weight of its own: `name` as in the model, its calls in order.

    dense: why it stays dense, "" where it is pruned.
    """

    name: str
    weight_target: str
    calls: tuple[LayerCall, ...]
    dense: str = ""


def module_name(parameter: str) -> str:
    """Return "a.b" for "a.b.weight" and "a.in_proj" for "a.in_proj_weight"."""
    path, _, leaf = parameter.rpartition(".")
    stem = leaf.partition("weight")[0].rstrip("_")
    return f"{path}.{stem}".strip(".") or parameter


def is_ignored(name: str, ignore: Sequence[str]) -> bool:
    """Return True when the name or a module above it matches an entry."""
    parts = name.split(".")
    above = [".".join(parts[:count]) for count in range(1, len(parts) + 1)]
    return any(fnmatch(path, entry) for entry in ignore for path in above)


def find_layers(graph_module: fx.GraphModule, ignore: Sequence[str] = ()) -> list[PrunableLayer]:
    """Return the layers of a captured graph in order, those that stay dense with the reason.

    ignore: names or patterns of modules.
    """
    calls: dict[str, list[LayerCall]] = {}
    computed: list[PrunableLayer] = []
    for node in graph_module.graph.nodes:
        if node.op != "call_function" or node.target not in _WEIGHTED:
            continue
        call = read_call(graph_module, node)
        if call is None:
            weight = node.all_input_nodes[1] if len(node.all_input_nodes) > 1 else None
            if node.target not in _PRODUCTS and weight is not None:
                where = weight.op == "get_attr"
                name = module_name(tensor_name(weight)) if where else node.name
                reason = "a kind of layer that is not pruned" if where else "its weight is computed"
                computed.append(PrunableLayer(name, "", (), reason))
            continue
        calls.setdefault(str(call.weight.target), []).append(call)
    positions = order(graph_module.graph)
    first, last = _first(calls), _last(graph_module, calls)
    layers = []
    for target, found in calls.items():
        name = module_name(tensor_name(found[0].weight))
        reason = "ignored" if is_ignored(name, ignore) else ""
        reason = reason or _reason(graph_module, found, target in first, target in last)
        found.sort(key=lambda c: positions[c.node])
        layers.append(PrunableLayer(name, target, tuple(found), reason))
    return layers + computed


def read_call(graph_module: fx.GraphModule, node: fx.Node) -> LayerCall | None:
    """Return the layer call of a node; None where it has no constant weight or is of no use."""
    values = arguments(node)
    bias: Any = None
    if node.target in _PRODUCTS:
        source, weight, geometry = node.args[0], node.args[1], Geometry("transposed")
    elif node.target is aten.addmm.default:
        if values["beta"] != 1 or values["alpha"] != 1:
            return None
        bias, source, weight = node.args[:3]
        geometry = Geometry("transposed")
    else:
        source, weight, bias = (values.get(name) for name in ("input", "weight", "bias"))
        linear = node.target is aten.linear.default
        found = Geometry("linear") if linear else _conv_geometry(graph_module, values, weight)
        if found is None:
            return None
        geometry = found
    tensor = constant(graph_module, weight)
    if tensor is None or not tensor.is_floating_point() or not isinstance(source, fx.Node):
        return None
    if geometry.kind != "conv" and tensor.dim() != 2:
        return None
    if constant(graph_module, source) is not None:
        return None
    if bias is not None:
        offset = constant(graph_module, bias)
        if offset is None or offset.dim() != 1:
            return None
    sizes = dims(source)
    if geometry.kind == "conv" and (sizes is None or len(sizes) != tensor.dim()):
        return None  # without a batch
    return LayerCall(node, source, weight, bias, geometry)


def _conv_geometry(
    graph_module: fx.GraphModule, values: dict[str, Any], weight: object
) -> Geometry | None:
    tensor = constant(graph_module, weight)
    if tensor is None or tensor.dim() not in (3, 4) or values.get("transposed"):
        return None
    if "output_padding" in values and "transposed" not in values:
        return None  # aten.conv_transpose
    axes = tensor.dim() - 2
    stride, dilation = (_pair(values[n], axes, 1) for n in ("stride", "dilation"))
    kernel = _pair(list(tensor.shape[2:]), axes, 1)
    padding = values["padding"]
    if padding == "valid":
        sides = ((0, 0), (0, 0))
    elif padding == "same":
        totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        sides = ((totals[0] // 2, -(-totals[0] // 2)), (totals[1] // 2, -(-totals[1] // 2)))
    else:
        top, left = _pair(padding, axes, 0)
        sides = ((top, top), (left, left))
    return Geometry("conv", stride, sides, dilation, int(values["groups"]))


def _pair(values: Any, axes: int, filler: int) -> tuple[int, int]:
    numbers = [int(v) for v in values] if isinstance(values, (list, tuple)) else [int(values)]
    numbers = numbers * axes if len(numbers) == 1 else numbers
    return (filler, numbers[0]) if axes == 1 else (numbers[0], numbers[1])


def _reason(
    graph_module: fx.GraphModule, calls: list[LayerCall], is_first: bool, is_last: bool
) -> str:
    """Return why a layer stays dense, "" where it is pruned."""
    weight = constant(graph_module, calls[0].weight)
    assert weight is not None
    geometry, k = calls[0].geometry, calls[0].geometry.matrices(weight)[0].shape[1]
    users = {user for call in calls for user in call.weight.users}
    if users != {call.node for call in calls}:
        return "its weight is used elsewhere too"
    if any(call.geometry != geometry or call.bias is not calls[0].bias for call in calls):
        return "its weight is shared by calls of different kinds"
    if k < LEAST_INPUTS:
        return f"few inputs: {k} of a channel"
    if is_first:
        return "the first convolution"
    if is_last:
        return "the last layer"
    return ""


def _first(calls: dict[str, list[LayerCall]]) -> set[str]:
    """Return the convolutions whose input no layer made."""
    layer_nodes = {call.node for found in calls.values() for call in found}
    after: set[fx.Node] = set()
    graph = next(iter(layer_nodes)).graph if layer_nodes else fx.Graph()
    for node in graph.nodes:
        if any(n in layer_nodes or n in after for n in node.all_input_nodes):
            after.add(node)
    return {
        target
        for target, found in calls.items()
        if found[0].geometry.kind == "conv" and any(c.node not in after for c in found)
    }


def _last(graph_module: fx.GraphModule, calls: dict[str, list[LayerCall]]) -> set[str]:
    """Return the layers whose results are the output, or become it by their order alone."""
    by_node = {call.node: target for target, found in calls.items() for call in found}
    output = next(n for n in graph_module.graph.nodes if n.op == "output")
    waiting, found = list(output.all_input_nodes), set()
    while waiting:
        node = waiting.pop()
        if node in by_node:
            found.add(by_node[node])
        elif node.op == "call_function" and _base_name(node) in _HEAD_OPS:
            waiting += node.all_input_nodes[:1]
    return found


def _base_name(node: fx.Node) -> str:
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        return target._schema.name.rpartition("::")[2]
    return getattr(target, "__name__", "")


def weight_of(graph_module: fx.GraphModule, call: LayerCall) -> Tensor:
    """Return the original weight of a call."""
    tensor = constant(graph_module, call.weight)
    assert tensor is not None
    return tensor
