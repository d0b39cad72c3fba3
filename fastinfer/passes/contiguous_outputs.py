"""contiguous_outputs: what the model answers contiguous, its graph answers contiguous."""

from __future__ import annotations

import torch
from torch import fx

from fastinfer.graph.match import finish
from fastinfer.program import Program

aten = torch.ops.aten


def contiguous_outputs(program: Program) -> int:
    """Make outputs contiguous where the model's were; return how many needed it.

    Convolutions answer in channels_last, and copies that only changed the layout are removed, but
    the caller may take a view of what he gets.
    """
    graph_module = program.graph_module
    if program.call is None:
        return 0
    graph, count = graph_module.graph, 0
    output = next(node for node in graph.nodes if node.op == "output")
    values = list(output.args[0])
    for index, wanted in enumerate(program.call.contiguous):
        value = values[index]
        if wanted and isinstance(value, fx.Node) and not _is_contiguous(value):
            with graph.inserting_before(output):
                values[index] = graph.call_function(aten.contiguous.default, (value,))
            values[index].meta = dict(value.meta)
            count += 1
    if count:
        output.args = (tuple(values),)
        finish(graph_module)
    return count


def _is_contiguous(node: fx.Node) -> bool:
    """Return True where another copy is surely needless."""
    if node.op in ("placeholder", "get_attr"):
        return True
    if node.target in (aten.contiguous.default, torch.ops.fastinfer.float_upsample2d.default):
        return True
    value = node.meta.get("val")
    # A matrix comes from a linear layer or a pooled image; neither has a layout of its own.
    return isinstance(value, torch.Tensor) and value.dim() < 3 and node.op == "call_module"
