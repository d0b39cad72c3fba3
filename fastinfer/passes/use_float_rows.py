"""use_float_rows: norms, softmax, means and upsampling in float beside int8 are region steps."""

from __future__ import annotations

import torch
from torch import fx

from fastinfer.graph.layer import Layer
from fastinfer.graph.match import (
    arguments,
    dims,
    dtype,
    finish,
    layer_of,
    nodes_calling,
    replace,
)
from fastinfer.passes.cancel_quantize import is_dequantize, is_quantize
from fastinfer.passes.float_calls import layer_norm, mean_of_image, softmax
from fastinfer.program import Program

aten = torch.ops.aten
own = torch.ops.fastinfer


def use_float_rows(program: Program) -> int:
    """Replace torch's float operations beside int8 by fastinfer's; return how many.

    Layer norm and softmax along what lies together in the engine's memory: the last dimension, of
    images the channels. On CPUs the mean of an image, too, and the upsampling that a result is:
    where torch's comes last its threads wait for the next call on the cores that the engine's want.
    """
    graph_module = program.graph_module
    graph, count = graph_module.graph, _use_global_avg_pool(program) + _use_upsample(program)
    for node in nodes_calling(graph, aten.layer_norm.default, aten.softmax.int):
        values, x = arguments(node), node.args[0]
        rank = len(dims(x) or ())
        if not isinstance(x, fx.Node) or dtype(node) != torch.float32 or not rank:
            continue
        if not _is_beside_int8(graph_module, node, x):
            continue
        is_norm = node.target is aten.layer_norm.default
        dim = rank - 1 if is_norm else values["dim"] % rank
        if dim != (1 if rank == 4 else rank - 1):
            continue
        with graph.inserting_before(node):
            made = (layer_norm if is_norm else softmax)(graph, node, values)
        if made is not None:
            replace(node, made)
            count += 1
    if count:
        finish(graph_module)
    return count


def _use_global_avg_pool(program: Program) -> int:
    graph_module = program.graph_module
    graph, count = graph_module.graph, 0
    for node in nodes_calling(graph, aten.adaptive_avg_pool2d.default):
        if not _is_image_of_int8(graph_module, node, node.args[0]):
            continue
        with graph.inserting_before(node):
            made = mean_of_image(graph, node, arguments(node))
        if made is not None:
            replace(node, made)
            count += 1
    return count


def _use_upsample(program: Program) -> int:
    graph_module = program.graph_module
    graph, count = graph_module.graph, 0
    for node in nodes_calling(graph, aten.upsample_bilinear2d.vec):
        x, values = node.args[0], arguments(node)
        is_result = all(user.op == "output" for user in node.users)
        if not is_result or not _is_image_of_int8(graph_module, node, x):
            continue
        sizes = (values["output_size"] or [], values["scale_factors"] or [])
        with graph.inserting_before(node):
            rest = (None, *sizes, values["align_corners"])
            made = graph.call_function(own.float_upsample2d.default, (x, *rest))
        replace(node, made)
        count += 1
    return count


def _is_image_of_int8(graph_module: fx.GraphModule, node: fx.Node, x: object) -> bool:
    """Return True for a node that makes of x, float32 [N, C, H, W] of int8 layers on a CPU."""
    if not isinstance(x, fx.Node) or dtype(x) != torch.float32 or len(dims(x) or ()) != 4:
        return False
    on_cpu: bool = x.meta["val"].device.type == "cpu"
    return on_cpu and _is_beside_int8(graph_module, node, x)


def _is_beside_int8(graph_module: fx.GraphModule, node: fx.Node, x: fx.Node) -> bool:
    """Return True when int8 is right before or behind a node; what a float layer answers is not."""
    is_packed = x.op == "call_module" and layer_of(graph_module, x, Layer) is None
    return is_dequantize(x) or is_packed or any(map(is_quantize, node.users))
