"""From a lowered graph to one whose int8 regions are each one call of the engine."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import fx, nn
from torch.fx.passes.infra.partitioner import CapabilityBasedPartitioner
from torch.fx.passes.operator_support import OperatorSupportBase

from fastinfer.engine import RegionModule, Source
from fastinfer.graph.match import pair
from fastinfer.lower.island_nodes import contiguous_operation, island_operation, islands
from fastinfer.lower.island_views import prepare_islands, restore_reshapes
from fastinfer.lower.operation import SOURCE, Operation, table_of
from fastinfer.lower.packed_nodes import packed_operation
from fastinfer.lower.region_borders import region_reports
from fastinfer.lower.region_nodes import (
    Shapes,
    channel_slices,
    is_uint8,
    rank,
    shape,
    split_constants,
    upsamples,
)
from fastinfer.nn.shared_graph import SharedGraph
from fastinfer.report import Report
from fastinfer.types.region import Step, renumbered

aten = torch.ops.aten
own = torch.ops.fastinfer

#: A region of fewer steps gains nothing over calling its ops.
SHORTEST = 2


def _quantize(node: fx.Node, _: fx.GraphModule) -> Operation | None:
    x, scale, zero_point = node.args[:3]
    assert isinstance(x, fx.Node)
    return Operation("quantize", (x,), (scale, zero_point))


def _dequantize(node: fx.Node, _: fx.GraphModule) -> Operation | None:
    x, scale, zero_point = node.args
    assert isinstance(x, fx.Node)
    return Operation("dequantize", (x,), (scale, zero_point))


def _flatten(node: fx.Node, _: fx.GraphModule) -> Operation | None:
    x, *dims = node.args
    assert isinstance(x, fx.Node)
    count = rank(x)
    start, end = (*dims, *(0, -1)[len(dims) :])
    if count is None or count < 2 or start != 1 or end not in (-1, count - 1):
        return None
    return Operation("flatten", (x,), ())


def _slice(node: fx.Node, _: fx.GraphModule) -> Operation | None:
    x, dim, first, last, *step = node.args
    assert isinstance(x, fx.Node)
    if rank(x) != 4 or dim != 1 or step not in ([], [1]) or not isinstance(last, int):
        return None
    assert isinstance(first, int)
    sizes = shape(x)
    assert sizes is not None
    channels = sizes[1]
    return Operation("slice", (x,), tuple(slice(first, last).indices(channels)[:2]))


def _channel_shuffle(node: fx.Node, _: fx.GraphModule) -> Operation | None:
    x, groups = node.args
    assert isinstance(x, fx.Node)
    return Operation("channel_shuffle", (x,), (groups,))


def _lookup(node: fx.Node, graph_module: fx.GraphModule) -> Operation | None:
    x, table = node.args
    source = table_of(table, graph_module)
    if source is None:
        return None
    assert isinstance(x, fx.Node)
    return Operation("int8_lookup", (x,), (SOURCE,), (source,))


def _max_pool(node: fx.Node, _: fx.GraphModule) -> Operation | None:
    x, *pairs, ceil_mode = node.args
    assert isinstance(x, fx.Node)
    return Operation("int8_max_pool2d", (x,), (*map(pair, pairs), bool(ceil_mode)))


def _avg_pool(node: fx.Node, _: fx.GraphModule) -> Operation | None:
    x, kernel, stride, padding, ceil_mode, include_pad, *numbers = node.args
    assert isinstance(x, fx.Node)
    pairs = (pair(kernel), pair(stride), pair(padding))
    flags = (bool(ceil_mode), bool(include_pad))
    return Operation("int8_avg_pool2d", (x,), (*pairs, *flags, *numbers))


def _adaptive_avg_pool(node: fx.Node, _: fx.GraphModule) -> Operation | None:
    x, size, *numbers = node.args
    assert isinstance(x, fx.Node)
    return Operation("int8_adaptive_avg_pool2d", (x,), (pair(size), *numbers))


def _add(node: fx.Node, graph_module: fx.GraphModule) -> Operation | None:
    x, y, *numbers, table = node.args
    assert isinstance(x, fx.Node) and isinstance(y, fx.Node)
    if table is None:
        return Operation("int8_add", (x, y), (*numbers, -1))
    source = table_of(table, graph_module)
    if source is None:
        return None
    return Operation("int8_add", (x, y), (*numbers, SOURCE), (source,))


def _mul(node: fx.Node, _: fx.GraphModule) -> Operation | None:
    x, y, *numbers = node.args
    assert isinstance(x, fx.Node) and isinstance(y, fx.Node)
    return Operation("int8_mul", (x, y), tuple(numbers))


def _cat(node: fx.Node, _: fx.GraphModule) -> Operation | None:
    parts, dim, multipliers, zero_points, out_zero_point = node.args
    assert isinstance(parts, (list, tuple))
    # In NHWC memory the other dimensions' order is not the engine's.
    if rank(parts[0]) is None or (rank(parts[0]) == 4 and dim not in (0, 1)):
        return None
    numbers = (dim, tuple(multipliers), tuple(zero_points), out_zero_point)
    return Operation("int8_cat", tuple(parts), numbers)


def _upsample(node: fx.Node, _: fx.GraphModule) -> Operation | None:
    x, like, size, factors, *flags = node.args
    assert isinstance(x, fx.Node) and isinstance(size, (list, tuple))
    assert isinstance(factors, (list, tuple))
    if any(isinstance(n, fx.Node) for n in size):
        return None
    reads = (x, like) if isinstance(like, fx.Node) else (x,)
    kind = "float_upsample2d" if node.target is own.float_upsample2d.default else "int8_upsample2d"
    return Operation(kind, reads, (tuple(size) or (0, 0), *(factors or (0.0, 0.0)), *flags))


def _layer_norm(node: fx.Node, graph_module: fx.GraphModule) -> Operation | None:
    x, weight, bias, eps, dim = node.args
    assert isinstance(x, fx.Node)
    if not _is_along_rows(node, dim):
        return None
    arguments: list[Any] = [dim]
    sources = []
    for parameter in (weight, bias):
        if parameter is None:
            arguments.append(-1)
            continue
        source = table_of(parameter, graph_module)
        if source is None:
            return None
        arguments.append(SOURCE)
        sources.append(source)
    return Operation("float_layer_norm", (x,), (*arguments, eps), tuple(sources))


def _softmax(node: fx.Node, _: fx.GraphModule) -> Operation | None:
    x, dim = node.args
    assert isinstance(x, fx.Node)
    return Operation("float_softmax", (x,), (dim,)) if _is_along_rows(node, dim) else None


def _global_avg_pool(node: fx.Node, _: fx.GraphModule) -> Operation | None:
    (x,) = node.args
    assert isinstance(x, fx.Node)
    return Operation("float_global_avg_pool2d", (x,))


def _is_along_rows(node: fx.Node, dim: Any) -> bool:
    """Return True when the engine has rows along dim: the last one, or an image's channels."""
    count = rank(node)
    return count is not None and count > 1 and (dim == count - 1 or (dim == 1 and count == 4))


_FUNCTIONS: Mapping[Any, Callable[[fx.Node, fx.GraphModule], Operation | None]] = {
    own.quantize.default: _quantize,
    own.dequantize.default: _dequantize,
    aten.flatten.using_ints: _flatten,
    aten.slice.Tensor: _slice,
    aten.channel_shuffle.default: _channel_shuffle,
    own.int8_lookup.default: _lookup,
    own.int8_max_pool2d.default: _max_pool,
    own.int8_avg_pool2d.default: _avg_pool,
    own.int8_adaptive_avg_pool2d.default: _adaptive_avg_pool,
    own.int8_add.default: _add,
    own.int8_mul.default: _mul,
    own.int8_cat.default: _cat,
    own.int8_upsample2d.default: _upsample,
    own.float_upsample2d.default: _upsample,
    own.float_layer_norm.default: _layer_norm,
    own.float_softmax.default: _softmax,
    own.float_global_avg_pool2d.default: _global_avg_pool,
}


def _operation(node: fx.Node, graph_module: fx.GraphModule) -> Operation | None:
    """Return node as a step of the engine, None when it has none."""
    if node.op == "call_module":
        return packed_operation(graph_module.get_submodule(str(node.target)), node)
    if node.op == "call_function" and not node.kwargs:
        make = _FUNCTIONS.get(node.target)
        moves = node.target in (aten.slice.Tensor, aten.channel_shuffle.default)
        if make is None or (moves and not is_uint8(node)):
            return None
        return make(node, graph_module)
    return None


class _Support(OperatorSupportBase):
    def __init__(self, graph_module: fx.GraphModule) -> None:
        self._graph_module = graph_module
        self._islands = islands(graph_module, self._is_anchor)

    def _is_anchor(self, node: fx.Node) -> bool:
        return _operation(node, self._graph_module) is not None

    def _is_step(self, node: fx.Node) -> bool:
        return node in self._islands or self._is_anchor(node)

    def is_node_supported(self, submodules: Mapping[str, nn.Module], node: fx.Node) -> bool:
        """Return True when node is a step of the engine."""
        if node.op == "get_attr":  # belongs to the ops that name it, if they all are steps
            is_table = table_of(node, self._graph_module) is not None
            return is_table and all(map(self._is_step, node.users))
        return self._is_step(node)


def with_regions(
    lowered: fx.GraphModule, inputs: Sequence[Any]
) -> tuple[fx.GraphModule, list[RegionModule], Any]:
    """Return a graph module in which regions are RegionModules, those, and lowered(*inputs).

    lowered is untouched; both share the packed modules. The list is empty when no region is worth a
    call.
    """
    graph_module = SharedGraph(lowered, _copied(lowered))
    result = Shapes(graph_module).run(*inputs)
    channel_slices(graph_module.graph)
    upsamples(graph_module.graph)
    split_constants(graph_module.graph)
    prepare_islands(graph_module, lambda node: _operation(node, graph_module) is not None)
    graph_module.recompile()
    partitioner = CapabilityBasedPartitioner(
        graph_module, _Support(graph_module), allows_single_node_partition=True
    )
    partitions = [p for p in partitioner.propose_partitions() if _is_worth(p.nodes)]
    # torch's own copy would have its threads wait for the next call on the engine's cores.
    for partition in partitions:
        made = {
            node: None for n in partition.nodes for node in n.users if contiguous_operation(node)
        }
        partition.nodes.update(made)
    if not partitions:
        restore_reshapes(graph_module.graph)
        graph_module.recompile()
        return graph_module, [], result
    fused = partitioner.fuse_partitions(partitions, prefix="region_")
    regions = []
    for node in fused.graph.nodes:
        if node.op == "call_module" and str(node.target).startswith("region_"):
            part = fused.get_submodule(str(node.target))
            assert isinstance(part, fx.GraphModule)
            part = SharedGraph(part, part.graph)
            part.share_tensors(lowered)
            region = _region_module(part)
            fused.set_submodule(str(node.target), region)
            regions.append(region)
    restore_reshapes(fused.graph)
    fused.recompile()
    return fused, regions, result


def _copied(lowered: fx.GraphModule) -> fx.Graph:
    graph = fx.Graph()
    copied: dict[fx.Node, fx.Node] = {}
    output = graph.graph_copy(lowered.graph, copied)
    graph.output(output)
    return graph


def _is_worth(nodes: Iterable[fx.Node]) -> bool:
    steps = [node for node in nodes if node.op != "get_attr"]
    return len(steps) >= SHORTEST and any(node.op == "call_module" for node in steps)


def _region_module(part: fx.GraphModule) -> RegionModule:
    """Return the region of a partition's own graph module."""
    values: dict[fx.Node, int] = {}
    numbers = itertools.count()
    steps: list[Step] = []
    names: list[str] = []
    sources: list[Source] = []
    inputs: list[int] = []
    outputs: list[int] = []
    for node in part.graph.nodes:
        if node.op == "placeholder":
            values[node] = next(numbers)
            inputs.append(values[node])
        elif node.op == "output":
            results = node.args[0]
            results = results if isinstance(results, (tuple, list)) else [results]
            outputs = [values[r] for r in results]
        elif node.op == "get_attr":
            continue
        else:
            operation = _operation(node, part) or island_operation(node, part)
            operation = operation or contiguous_operation(node)
            assert operation is not None, node.format_node()
            new = iter(range(len(sources), len(sources) + len(operation.sources)))
            sources += operation.sources
            arguments = tuple(next(new) if a is SOURCE else a for a in operation.arguments)
            reads = tuple(values[r] for r in operation.reads)
            steps.append(Step(operation.kind, next(numbers), reads, arguments))
            for kind, others, arguments in operation.then:
                reads = (steps[-1].out, *(values[r] for r in others))
                steps.append(Step(kind, next(numbers), reads, arguments))
            values[node] = steps[-1].out
            names += [_name(node)] * (1 + len(operation.then))
    restore_reshapes(part.graph)
    part.recompile()
    return RegionModule(renumbered(steps, inputs, outputs), sources, part, names)


def _name(node: fx.Node) -> str:
    """Return a layer's name, or that of the module an operation stands in, if it is known."""
    if node.op == "call_module":
        return str(node.target)
    modules = list(node.meta.get("nn_module_stack", {}).values())
    return (modules and modules[-1][0]) or node.name.replace("_default", "")


def checked_regions(
    lowered: fx.GraphModule, inputs: Sequence[Any], report: Report
) -> fx.GraphModule | None:
    """Return `with_regions` of lowered when it answers inputs with the same bits, else None.

    The report gets the regions, or why there are none. No fault of a region may fail convert.
    """
    report.regions = []
    try:
        with torch.inference_mode():
            fused, regions, wanted = with_regions(lowered, inputs)
            if not regions:
                return None
            got = fused(*inputs)
    except Exception as error:  # a fault of ours; the lowered graph works without regions
        report.note(f"engine not used: {type(error).__name__}: {error}")
        return None
    if not all(torch.equal(a, b) for a, b in zip(wanted, got, strict=True)):
        report.note("engine not used: its answer to the example differs from the single ops'")
        return None
    report.regions = region_reports(fused)
    return fused


__all__ = ["checked_regions"]
