"""Graphs of Layers built by symbolic tracing, for tests that stand before capture and passes."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from fastinfer.graph.layer import Layer, LayerSpec
from fastinfer.program import Program
from fastinfer.types import Activation, Epilogue

ACTIVATIONS = {
    nn.ReLU: Activation("clamp", (0.0, math.inf)),
    nn.ReLU6: Activation("clamp", (0.0, 6.0)),
    nn.SiLU: Activation("silu"),
    nn.Hardswish: Activation("hardswish"),
    nn.GELU: Activation("gelu"),
}


def make_layer(module: nn.Module) -> Layer:
    """Return the Layer of a Linear, Conv1d or Conv2d."""
    weight = module.weight.detach().clone()
    bias = None if module.bias is None else module.bias.detach().clone()
    if isinstance(module, nn.Linear):
        return Layer(LayerSpec("linear", module.out_features, module.in_features), weight, bias)
    kind = "conv1d" if isinstance(module, nn.Conv1d) else "conv2d"

    def pair(value: tuple[int, ...], fill: int) -> tuple[int, int]:
        return (fill, value[0]) if kind == "conv1d" else tuple(value)

    spec = LayerSpec(
        kind,
        module.out_channels,
        module.in_channels,
        pair(module.kernel_size, 1),
        pair(module.stride, 1),
        pair(module.padding, 0),
        pair(module.dilation, 1),
        module.groups,
    )
    return Layer(spec, weight, bias)


def layer_graph(model: nn.Module) -> Program:
    """Return a model as a graph of Layers: BatchNorm folded, activation and residual fused."""
    traced = fx.symbolic_trace(model.eval())
    modules = dict(traced.named_modules())
    graph = traced.graph

    def only_user(node: fx.Node) -> fx.Node | None:
        return next(iter(node.users)) if len(node.users) == 1 else None

    for node in list(graph.nodes):
        module = modules.get(str(node.target)) if node.op == "call_module" else None
        if not isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d)):
            continue
        user = only_user(node)
        norm = modules.get(str(user.target)) if user is not None else None
        if isinstance(norm, nn.BatchNorm2d) and user.op == "call_module":
            module = fuse_conv_bn_eval(module, norm)
            user.replace_all_uses_with(node)
            graph.erase_node(user)
        layer = make_layer(module)
        traced.set_submodule(str(node.target), layer)
        _fuse(graph, node, layer, modules)
    graph.eliminate_dead_code()
    traced.recompile()
    for node in graph.nodes:
        if node.op == "call_module" and isinstance(modules.get(str(node.target)), nn.Dropout):
            node.replace_all_uses_with(node.args[0])
    graph.eliminate_dead_code()
    traced.recompile()
    return Program(traced)


def _fuse(graph: fx.Graph, node: fx.Node, layer: Layer, modules: dict[str, nn.Module]) -> None:
    user = next(iter(node.users)) if len(node.users) == 1 else None
    order = {n: i for i, n in enumerate(graph.nodes)}
    if (
        user is not None
        and user.op == "call_function"
        and getattr(user.target, "__name__", "")
        in (
            "add",
            "iadd",
        )
    ):
        other = user.args[0] if user.args[1] is node else user.args[1]
        if isinstance(other, fx.Node) and other is not node and order[other] < order[node]:
            node.args = (node.args[0], other)
            layer.spec = replace(layer.spec, epilogue=Epilogue(has_residual=True))
            user.replace_all_uses_with(node)
            graph.erase_node(user)
            user = next(iter(node.users)) if len(node.users) == 1 else None
    activation = modules.get(str(user.target)) if user is not None else None
    if user is not None and user.op == "call_module" and type(activation) in ACTIVATIONS:
        epilogue = replace(layer.spec.epilogue, activation=ACTIVATIONS[type(activation)])
        layer.spec = replace(layer.spec, epilogue=epilogue)
        user.replace_all_uses_with(node)
        graph.erase_node(user)


def random_batches(shape: tuple[int, ...], count: int = 4, seed: int = 0) -> list[torch.Tensor]:
    """Return seeded normal batches."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for _ in range(count)]
