"""make_norm_layers: a BatchNorm between layers that none of them takes is a layer of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import fx

from fastinfer.graph.between import find_betweens
from fastinfer.graph.layer import Layer, LayerSpec
from fastinfer.graph.match import dims, finish, layer_of, nodes_calling, tensor_name
from fastinfer.graph.transparent import is_transparent
from fastinfer.passes.fold_batch_norm import NORMS, Norm, folded, read_norm
from fastinfer.passes.make_layers import unique_name
from fastinfer.program import Program


def make_norm_layers(program: Program) -> int:
    """Replace BatchNorms of images that stand between layers by depthwise 1x1 layers.

    Returns how many. In int8 nothing is lost: a channel's only weight is its scale times 127. For
    static int8 only: in float a BatchNorm is its own best form.
    """
    graph_module = program.graph_module
    passed = {*find_betweens(graph_module.graph), *nodes_calling(graph_module.graph, *NORMS)}
    count = 0
    for node in nodes_calling(graph_module.graph, *NORMS):
        norm, source, sizes = read_norm(graph_module, node), node.args[0], dims(node.args[0])
        if norm is None or not isinstance(source, fx.Node) or sizes is None or len(sizes) != 4:
            continue
        if norm.mean.dtype != torch.float32:
            continue

        def meets_layer(
            near: Iterable[fx.Node], onward: Callable[[fx.Node], Iterable[fx.Node]]
        ) -> bool:
            return _meets_layer(graph_module, near, onward, passed)

        before = meets_layer([source], lambda n: n.all_input_nodes)
        if before and meets_layer(norm.result.users, lambda n: n.users):
            _replace(graph_module, node, source, norm)
            count += 1
    if count:
        finish(graph_module)
    return count


def _meets_layer(
    graph_module: fx.GraphModule,
    near: Iterable[fx.Node],
    onward: Callable[[fx.Node], Iterable[fx.Node]],
    passed: set[fx.Node],
) -> bool:
    """Return True when a layer is reached through operations that have an int8 form."""
    seen: set[fx.Node] = set()
    pending = list(near)
    while pending:
        node = pending.pop()
        if layer_of(graph_module, node, Layer) is not None:
            return True
        if node not in seen and (node in passed or is_transparent(node)):
            seen.add(node)
            pending += onward(node)
    return False


def _replace(graph_module: fx.GraphModule, node: fx.Node, source: fx.Node, norm: Norm) -> None:
    channels = norm.mean.numel()
    ones = torch.ones(channels, 1, 1, 1, dtype=norm.mean.dtype, device=norm.mean.device)
    weight, bias = folded(ones, None, norm.mean, norm.var, norm.gamma, norm.beta, norm.eps)
    mean = node.args[3]
    assert isinstance(mean, fx.Node)
    name = unique_name(graph_module, tensor_name(mean).rpartition(".")[0] or "norm")
    spec = LayerSpec("conv2d", channels, channels, groups=channels)
    graph_module.add_submodule(name, Layer(spec, weight, bias).eval())
    with graph_module.graph.inserting_before(node):
        call = graph_module.graph.call_module(name, (source,))
    call.meta = dict(norm.result.meta)
    norm.result.replace_all_uses_with(call)
    graph_module.graph.erase_node(norm.result)
    if norm.result is not node:
        graph_module.graph.erase_node(node)
