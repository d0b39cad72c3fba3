"""Where the regions of a graph begin and end, in the names of the operations there."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Iterator

import torch
from torch import fx

from fastinfer.engine import RegionModule
from fastinfer.graph.layer import Layer
from fastinfer.report import RegionReport

#: What only picks one of a region's results, or lays it out for the caller.
_SEEN_THROUGH = (operator.getitem, torch.ops.aten.contiguous.default)


def region_reports(fused: fx.GraphModule) -> list[RegionReport]:
    """Return every region of a graph with what feeds it and what reads it, in graph order."""
    reports = []
    for node in fused.graph.nodes:
        region = _region(fused, node)
        if region is not None:
            before = Counter(_name(fused, source) for source in _sources(node))
            after = Counter(_name(fused, user) for user in _readers(node))
            steps = len(region.region.steps)
            reports.append(RegionReport(steps, before=dict(before), after=dict(after)))
    return reports


def _region(fused: fx.GraphModule, node: fx.Node) -> RegionModule | None:
    module = fused.get_submodule(str(node.target)) if node.op == "call_module" else None
    return module if isinstance(module, RegionModule) else None


def _sources(node: fx.Node) -> dict[fx.Node, None]:
    """Return the nodes whose values a region reads."""
    found: dict[fx.Node, None] = {}
    for source in node.all_input_nodes:
        while source.target in _SEEN_THROUGH:
            source = source.all_input_nodes[0]
        found[source] = None
    return found


def _readers(node: fx.Node) -> dict[fx.Node, None]:
    """Return the nodes that read a region's results."""

    def walk(node: fx.Node) -> Iterator[fx.Node]:
        for user in node.users:
            if user.target in _SEEN_THROUGH:
                yield from walk(user)
            else:
                yield user

    return dict.fromkeys(walk(node))


def _name(fused: fx.GraphModule, node: fx.Node) -> str:
    """Return an operation's name for people: "upsample_nearest2d", "float conv2d"."""
    if node.op in ("placeholder", "output"):
        return {"placeholder": "input"}.get(node.op, node.op)
    if node.op == "call_module":
        if _region(fused, node) is not None:
            return "another region"
        module = fused.get_submodule(str(node.target))
        return f"float {module.spec.kind}" if isinstance(module, Layer) else type(module).__name__
    if isinstance(node.target, torch._ops.OpOverload):
        return node.target._schema.name.partition("::")[2]
    return str(getattr(node.target, "__name__", node.target))
