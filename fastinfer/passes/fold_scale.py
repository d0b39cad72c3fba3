"""fold_scale: a layer's output times a constant of each channel is a layer with other weights."""

from __future__ import annotations

import torch
from torch import fx

from fastinfer.graph.layer import Layer
from fastinfer.graph.match import constant, dims, finish, layer_of, nodes_calling, replace
from fastinfer.program import Program

aten = torch.ops.aten


def fold_scale(program: Program) -> int:
    """Fold factors behind layers, constant numbers or tensors, into their weights; return how many.

    A layer that something else reads, or whose epilogue holds more than its bias, stays.
    """
    graph_module = program.graph_module
    count = 0
    for node in nodes_calling(graph_module.graph, aten.mul.Tensor):
        x, factor = _operands(graph_module, node)
        layer = layer_of(graph_module, x, Layer)
        if layer is None or factor is None or not _is_free(graph_module, x, layer):
            continue
        assert isinstance(x, fx.Node)
        n = layer.spec.out_features
        scale = _per_channel(factor, n, layer.spec.kind, len(dims(node) or ()))
        if scale is None or dims(node) != dims(x):
            continue
        scale = scale.to(layer.weight.device)
        columns = scale.reshape(-1, *[1] * (layer.weight.dim() - 1))
        weight = (layer.weight.detach().double() * columns).to(layer.weight.dtype)
        bias = None
        if layer.bias is not None:
            bias = (layer.bias.detach().double() * scale).to(layer.bias.dtype)
        graph_module.set_submodule(str(x.target), Layer(layer.spec, weight, bias).eval())
        replace(node, x)
        count += 1
    if count:
        finish(graph_module)
    return count


def _operands(graph_module: fx.GraphModule, node: fx.Node) -> tuple[object, torch.Tensor | None]:
    """Return what a multiplication multiplies and its constant factor, None when it has none."""
    for x, factor in (node.args[:2], node.args[1::-1]):
        if type(factor) in (int, float):
            return x, torch.tensor(factor, dtype=torch.float64)
        tensor = constant(graph_module, factor)
        if tensor is not None and tensor.is_floating_point():
            return x, tensor.double()
    return None, None


def _is_free(graph_module: fx.GraphModule, node: object, layer: Layer) -> bool:
    assert isinstance(node, fx.Node)
    epilogue = layer.spec.epilogue
    calls = sum(n.target == node.target for n in node.graph.nodes if n.op == "call_module")
    plain = epilogue.activation.is_identity and not epilogue.has_residual
    return plain and calls == 1 and len(node.users) == 1


def _per_channel(factor: torch.Tensor, n: int, kind: str, rank: int) -> torch.Tensor | None:
    """Return the factor of each of n channels, float64; None for any other shape."""
    axis = rank - 1 if kind == "linear" else 1
    shape = [1] * (rank - factor.dim()) + list(factor.shape)
    if len(shape) != rank or any(s != 1 for d, s in enumerate(shape) if d != axis):
        return None
    if shape and shape[axis] not in (1, n):
        return None
    return factor.reshape(-1).expand(n)
