"""make_layers: linear and convolution operators with constant weights become `Layer` submodules."""

from __future__ import annotations

import torch
from torch import fx, nn

from fastinfer.graph.layer import Layer, LayerSpec
from fastinfer.graph.match import arguments, constant, dims, finish, tensor_name
from fastinfer.program import Program

aten = torch.ops.aten

_CONVOLUTIONS = {
    aten.conv1d.default: 1,
    aten.conv1d.padding: 1,
    aten.conv2d.default: 2,
    aten.conv2d.padding: 2,
}
_PRODUCTS = (aten.matmul.default, aten.mm.default)


def make_layers(program: Program) -> int:
    """Replace linears and convolutions by calls of a `Layer` each; return how many.

    A Layer has the model's own name of the module that holds its weight ("features.0.0"). Layers
    that share a weight share its memory.
    """
    graph_module = program.graph_module
    count = 0
    for node in list(graph_module.graph.nodes):
        made = _layer(graph_module, node)
        if made is None:
            continue
        layer, source, weight = made
        name = unique_name(graph_module, _module_name(weight, layer.spec.kind))
        graph_module.add_submodule(name, layer)
        with graph_module.graph.inserting_before(node):
            call = graph_module.graph.call_module(name, (source,))
        call.meta = dict(node.meta)
        node.replace_all_uses_with(call)
        graph_module.graph.erase_node(node)
        count += 1
    if count:
        finish(graph_module)
    return count


def _layer(graph_module: fx.GraphModule, node: fx.Node) -> tuple[Layer, fx.Node, fx.Node] | None:
    """Return the Layer of a node, its input and its weight's node; None when it is none."""
    if node.op != "call_function":
        return None
    if node.target in _PRODUCTS:
        source, factor = node.args[:2]
        bias: object = None
        transposed = True
    elif node.target is aten.addmm.default:
        values = arguments(node)
        if values["beta"] != 1 or values["alpha"] != 1:
            return None
        bias, source, factor, transposed = node.args[0], node.args[1], node.args[2], True
    elif (
        node.target is aten.linear.default
        or node.target is aten.convolution.default
        or (node.target in _CONVOLUTIONS)
    ):
        values = arguments(node)
        source, factor, bias = values["input"], values["weight"], values["bias"]
        transposed = False
    else:
        return None
    weight, offset = constant(graph_module, factor), constant(graph_module, bias)
    if weight is None or not weight.is_floating_point() or (bias is not None and offset is None):
        return None
    if not isinstance(source, fx.Node) or constant(graph_module, source) is not None:
        return None
    if transposed:
        if weight.dim() != 2 or (offset is not None and offset.dim() != 1):
            return None
        weight = weight.t().contiguous()
    spec = _spec(node, weight)
    if spec is None or (offset is not None and offset.shape != (spec.out_features,)):
        return None
    assert isinstance(factor, fx.Node)
    return Layer(spec, weight, offset).eval(), source, factor


def _spec(node: fx.Node, weight: torch.Tensor) -> LayerSpec | None:
    sizes = dims(node.args[0] if node.target is not aten.addmm.default else node.args[1])
    if node.target in (*_PRODUCTS, aten.addmm.default, aten.linear.default):
        # A vector times a matrix has no batch; linear takes it, and so does Layer.
        return LayerSpec("linear", weight.shape[0], weight.shape[1]) if weight.dim() == 2 else None
    values = arguments(node)
    spatial = weight.dim() - 2
    if spatial not in (1, 2) or sizes is None or len(sizes) != spatial + 2:
        return None  # conv3d, or an input without a batch
    if values.get("transposed"):
        return None
    kernel = tuple(weight.shape[2:])
    stride = _pair(values["stride"], spatial, 1)
    dilation = _pair(values["dilation"], spatial, 1)
    padding = _padding(values["padding"], kernel, dilation, spatial)
    if padding is None:
        return None
    groups = int(values["groups"])
    return LayerSpec(
        "conv1d" if spatial == 1 else "conv2d",
        weight.shape[0],
        weight.shape[1] * groups,
        _pair(list(kernel), spatial, 1),
        stride,
        padding,
        dilation,
        groups,
    )


def _pair(values: object, spatial: int, filler: int) -> tuple[int, int]:
    """Return (height, width); one value serves every dimension, conv1d has height `filler`."""
    numbers = [int(v) for v in values] if isinstance(values, (list, tuple)) else [int(values)]  # type: ignore[call-overload]
    if len(numbers) == 1:
        numbers = numbers * spatial
    return (filler, numbers[0]) if spatial == 1 else (numbers[0], numbers[1])


def _padding(
    padding: object, kernel: tuple[int, ...], dilation: tuple[int, int], spatial: int
) -> tuple[int, int] | None:
    """Return the padding per side, None where "same" would pad the two sides differently."""
    if padding == "valid":
        return (0, 0)
    if padding == "same":
        total = [d * (k - 1) for k, d in zip(kernel, dilation[-spatial:], strict=True)]
        if any(amount % 2 for amount in total):
            return None
        return _pair([amount // 2 for amount in total], spatial, 0)
    return _pair(padding, spatial, 0)


def _module_name(weight: fx.Node, kind: str) -> str:
    """Return "a.b" for the weight "a.b.weight" and "a.in_proj" for "a.in_proj_weight"."""
    path, _, leaf = tensor_name(weight).rpartition(".")
    stem = leaf.partition("weight")[0].rstrip("_")
    if not stem and not path:
        return kind
    return f"{path}.{stem}".strip(".")


def unique_name(graph_module: fx.GraphModule, name: str) -> str:
    """Return the name, or one like it, under which a submodule can be added.

    A name that is taken gets a number; one that would lie inside a Layer gets its dots replaced.
    """
    parent: nn.Module = graph_module
    *path, leaf = name.split(".")
    for part in path:
        child = parent._modules.get(part)
        if child is None:
            if hasattr(parent, part):
                return unique_name(graph_module, f"model.{name}")
            break
        if type(child) is not nn.Module:
            return unique_name(graph_module, name.replace(".", "_"))
        parent = child
    else:
        candidate, count = leaf, 0
        while hasattr(parent, candidate):
            count += 1
            candidate = f"{leaf}_{count}"
        return ".".join([*path, candidate])
    return name
