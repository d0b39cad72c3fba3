"""sink_permutes: what works on [N, H, W, C] between two images works on the images themselves."""

from __future__ import annotations

import torch
from torch import fx

from fastinfer.graph.activations import activation_of
from fastinfer.graph.layer import Layer, LayerSpec
from fastinfer.graph.match import arguments, dims, dtype, finish, layer_of, nodes_calling
from fastinfer.program import Program

aten = torch.ops.aten
own = torch.ops.fastinfer

#: Image to channels last, and back.
_TO_LAST, _BACK = (0, 2, 3, 1), (0, 3, 1, 2)


def sink_permutes(program: Program) -> int:
    """Remove pairs of permutes round layer norms, linears and activations; return how many.

    permute(0, 2, 3, 1), then operations on the last dimension, then permute(0, 3, 1, 2) become the
    same on channels: a linear is a 1x1 convolution, a layer norm torch.ops.fastinfer's. That is
    torchvision's ConvNeXt and its LayerNorm2d. For static int8 only: convolutions stay int8 there,
    and in float the layer norm is not torch's to the bit.
    """
    graph_module = program.graph_module
    count = 0
    for start in nodes_calling(graph_module.graph, aten.permute.default):
        if _order(start) != _TO_LAST:
            continue
        found = _between(graph_module, start)
        if found is None:
            continue
        inside, ends = found
        source = start.args[0]
        assert isinstance(source, fx.Node)
        image = {start: source}
        for node in inside:
            image[node] = _on_image(graph_module, node, image[node.all_input_nodes[0]])
        for end in ends:
            made = image[end.all_input_nodes[0]]
            end.replace_all_uses_with(made)
            graph_module.graph.erase_node(end)
        for node in (*reversed(inside), start):
            graph_module.graph.erase_node(node)
        count += 1
    if count:
        finish(graph_module)
    return count


def _order(node: fx.Node) -> tuple[int, ...] | None:
    """Return the permutation of a permute of four dimensions, counted from the first."""
    if node.op != "call_function" or node.target is not aten.permute.default:
        return None
    values = arguments(node)["dims"]
    return tuple(d % 4 for d in values) if len(values) == 4 else None


def _between(
    graph_module: fx.GraphModule, start: fx.Node
) -> tuple[list[fx.Node], list[fx.Node]] | None:
    """Return the operations behind a permute in order, and the permutes back; None if others."""
    inside: list[fx.Node] = []
    ends: list[fx.Node] = []
    pending = [start]
    while pending:
        for user in pending.pop().users:
            if _order(user) == _BACK:
                ends.append(user)
            elif _is_of_channels(graph_module, user):
                inside.append(user)
                pending.append(user)
            else:
                return None
    return (inside, ends) if inside and ends else None


def _is_of_channels(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    if dtype(node) != torch.float32 or len(dims(node) or ()) != 4:
        return False
    layer = layer_of(graph_module, node, Layer)
    if layer is not None:
        calls = sum(n.target == node.target for n in node.graph.nodes if n.op == "call_module")
        return layer.spec.kind == "linear" and len(node.args) == 1 and calls == 1
    if len([n for n in node.all_input_nodes if n.op != "get_attr"]) != 1:
        return False
    if node.op == "call_function" and node.target is aten.layer_norm.default:
        return len(arguments(node)["normalized_shape"]) == 1
    return activation_of(node) is not None


def _on_image(graph_module: fx.GraphModule, node: fx.Node, image: fx.Node) -> fx.Node:
    """Return a node's operation on the image, placed before it."""
    graph = graph_module.graph
    with graph.inserting_before(node):
        if node.op == "call_module":
            layer = layer_of(graph_module, node, Layer)
            spec = LayerSpec("conv2d", layer.spec.out_features, layer.spec.in_features)
            weight = layer.weight.detach()[:, :, None, None]
            bias = None if layer.bias is None else layer.bias.detach()
            graph_module.set_submodule(str(node.target), Layer(spec, weight, bias).eval())
            made = graph.call_module(str(node.target), (image,))
        elif node.target is aten.layer_norm.default:
            values = arguments(node)
            norm = (image, values["weight"], values["bias"], values["eps"], 1)
            made = graph.call_function(own.float_layer_norm.default, norm)
        else:
            made = graph.node_copy(node, lambda n: image)
    made.meta = dict(node.meta)
    made.meta["val"] = node.meta["val"].permute(_BACK)
    return made
