"""Which rule follows the channels through which operator."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx

from fastinfer.compress.prune.channels import rules_layers as layers
from fastinfer.compress.prune.channels import rules_layout as layout
from fastinfer.compress.prune.channels import rules_values as values
from fastinfer.compress.prune.channels.trace import Trace

#: (what is found so far, the node, its arguments by name) -> labels of its result's axes.
Rule = Callable[[Trace, fx.Node, Mapping[str, Any]], Any]

#: Operator name, without its overload -> rule.
RULES: dict[str, Rule] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), layers.convolution),
    **dict.fromkeys(
        ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), layers.transposed_convolution
    ),
    "linear": layers.linear,
    **dict.fromkeys(("matmul", "mm", "bmm"), layers.matmul),
    "addmm": layers.addmm,
    "embedding": layers.embedding,
    "batch_norm": layers.batch_norm,
    "instance_norm": layers.batch_norm,
    **dict.fromkeys(("layer_norm", "rms_norm"), layers.norm_of_last),
    "group_norm": layers.group_norm,
    "scaled_dot_product_attention": layers.attention,
    "prelu": layers.prelu,
    **dict.fromkeys(("reshape", "view", "flatten", "unflatten", "view_as"), layout.reshape),
    **dict.fromkeys(("permute", "transpose", "movedim", "t", "numpy_T"), layout.permute),
    "unsqueeze": layout.unsqueeze,
    "squeeze": layout.squeeze,
    "expand": layout.expand,
    "repeat": layout.repeat,
    "cat": layout.cat,
    "concat": layout.cat,
    "stack": layout.stack,
    **dict.fromkeys(("split", "split_with_sizes", "chunk", "tensor_split"), layout.split),
    "unbind": layout.unbind,
    "select": layout.select,
    "slice": layout.slice_axis,
    "pad": layout.pad,
    "constant_pad_nd": layout.pad,
    "pixel_shuffle": layout.pixel_shuffle,
    **dict.fromkeys(("channel_shuffle", "native_channel_shuffle"), layout.channel_shuffle),
    "index": layout.index,
    **dict.fromkeys(("roll", "flip"), layout.moved_within),
    **dict.fromkeys(("softmax", "log_softmax", "_softmax", "cumsum"), values.along),
    **dict.fromkeys(("mean", "sum", "amax", "amin", "var", "std"), values.reduced),
    "glu": values.glu,
    # Of these the input says only dtype and device, or a size that stands as a number elsewhere.
    **dict.fromkeys(
        (
            *("new_zeros", "new_ones", "new_full", "new_empty", "sym_size"),
            *("zeros_like", "ones_like", "full_like", "empty_like"),
        ),
        lambda trace, node, named: values.no_channels(trace, node),
    ),
}

#: Operators that answer each value on its own, and have no tag that says so.
POINTWISE = frozenset(
    (
        *("dropout", "feature_dropout", "alpha_dropout", "contiguous", "clone", "detach", "alias"),
        *("to", "_to_copy", "type_as", "float", "double", "half", "lift_fresh_copy"),
        *("relu", "relu6", "hardswish", "hardsigmoid", "hardtanh", "silu", "mish", "selu", "celu"),
        *("elu", "gelu", "leaky_relu", "softplus", "log_sigmoid", "sigmoid", "tanh"),
    )
)


def apply_rule(trace: Trace, node: fx.Node, named: Mapping[str, Any]) -> Any:
    """Return the labels of a call's result; what no rule knows keeps all its channels."""
    if node.target is operator.getitem:
        source, position = node.args[0], node.args[1]
        found = trace.axes.get(source) if isinstance(source, fx.Node) else None
        if isinstance(found, list) and isinstance(position, int):
            return found[position]
        return values.no_channels(trace, node)
    name = _name(node)
    rule = RULES.get(name)
    if rule is not None:
        return rule(trace, node, named)
    if name.startswith(layout.SPATIAL):
        return layout.spatial(trace, node, named)
    tags = getattr(node.target, "tags", ())
    if torch.Tag.pointwise in tags or name in POINTWISE:
        return values.pointwise(trace, node, named)
    trace.freeze_all(node.all_input_nodes, f"no rule for the operator {name}")
    return values.no_channels_at_all(trace, node)


def _name(node: fx.Node) -> str:
    schema = getattr(node.target, "_schema", None)
    name = str(node.target) if schema is None else str(schema.name)
    return name.rpartition("::")[2]
