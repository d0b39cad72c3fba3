"""From a lowered graph to one whose int8 regions are each one call of the engine."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.infra.partitioner import CapabilityBasedPartitioner
from torch.fx.passes.operator_support import OperatorSupportBase

from fastinfer.engine import RegionModule
from fastinfer.graph.match import TENSORS
from fastinfer.lower.region_borders import region_reports
from fastinfer.nn import Int8Conv2d, Int8Linear
from fastinfer.report import Report
from fastinfer.types.region import Step, renumbered

aten = torch.ops.aten
own = torch.ops.fastinfer

#: A region of fewer steps gains nothing over calling its ops.
SHORTEST = 2


@dataclass(frozen=True)
class _Operation:
    """A node as a step: the nodes it reads, its arguments, and the buffers it names, in order.

    The place of a buffer's index among the arguments is where `sources` go: see _SOURCE.
    """

    kind: str
    reads: tuple[fx.Node, ...]
    arguments: tuple[Any, ...]
    sources: tuple[Any, ...] = ()


#: Stands among the arguments for the index of the next source.
_SOURCE = object()


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


def _packed_module(module: nn.Module, node: fx.Node) -> _Operation | None:
    """Return the step of a call of a packed module, None when the engine has none for it."""
    reads = tuple(a for a in node.args if isinstance(a, fx.Node))
    if node.kwargs or len(reads) != len(node.args):
        return None
    if type(module) is Int8Linear and _rank(reads[0]) not in (None, 4):
        arguments = (_SOURCE, module.out_features, module.float_output)
        return _Operation("int8_linear", reads, arguments, (module,))
    if type(module) is Int8Conv2d:
        geometry = [
            _pair(p) for p in (module.kernel_size, module.stride, module.padding, module.dilation)
        ]
        if module._op is own.int8_depthwise_conv2d.default:
            arguments = (_SOURCE, *geometry, module.float_output)
            return _Operation("int8_depthwise_conv2d", reads, arguments, (module,))
        arguments = (
            _SOURCE, module.out_features, *geometry, module.groups, module.float_output,
        )  # fmt: skip
        return _Operation("int8_conv2d", reads, arguments, (module,))
    return None


#: Keys of node.meta, in this file's own copies of a graph: size and type of the example's value.
_SHAPE, _DTYPE = "fastinfer_shape", "fastinfer_dtype"


class _Shapes(fx.Interpreter):
    """Runs a graph and notes the shape and dtype of every value."""

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, Tensor):
            n.meta[_SHAPE], n.meta[_DTYPE] = tuple(value.shape), value.dtype
        return value


def _rank(node: fx.Node) -> int | None:
    shape = node.meta.get(_SHAPE)
    return None if shape is None else len(shape)


def _is_uint8(node: fx.Node) -> bool:
    return node.meta.get(_DTYPE) is torch.uint8


def _channel_slices(graph: fx.Graph) -> None:
    """Turn chunk and split of an image's channels into one slice for each part."""
    for node in list(graph.nodes):
        if node.op != "call_function" or node.target not in _SPLITS or node.kwargs:
            continue
        x, _, *dim = node.args
        users = list(node.users)
        if dim != [1] or _rank(x) != 4 or any(u.target is not operator.getitem for u in users):
            continue
        first = 0
        starts = []
        for size in _part_sizes(x.meta[_SHAPE][1], node):
            starts.append((first, first + size))
            first += size
        for user in users:
            with graph.inserting_before(user):
                part = graph.call_function(aten.slice.Tensor, (x, 1, *starts[user.args[1]]))
            part.meta = dict(user.meta)
            user.replace_all_uses_with(part)
            graph.erase_node(user)
        graph.erase_node(node)


_SPLITS = (aten.chunk.default, aten.split.Tensor, aten.split_with_sizes.default)


def _part_sizes(channels: int, node: fx.Node) -> list[int]:
    argument: Any = node.args[1]
    if node.target is aten.split_with_sizes.default:
        return list(argument)
    size = -(-channels // argument) if node.target is aten.chunk.default else argument
    return [min(size, channels - at) for at in range(0, channels, size)]


def _table(node: Any, graph_module: fx.GraphModule) -> Any:
    """Return the tensor a get_attr node names."""
    if not isinstance(node, fx.Node) or node.op != "get_attr":
        return None
    value: Any = graph_module
    for part in str(node.target).split("."):
        value = getattr(value, part)
    return value if isinstance(value, Tensor) else None


def _quantize(node: fx.Node, _: fx.GraphModule) -> _Operation | None:
    x, scale, zero_point = node.args[:3]
    assert isinstance(x, fx.Node)
    return _Operation("quantize", (x,), (scale, zero_point))


def _dequantize(node: fx.Node, _: fx.GraphModule) -> _Operation | None:
    x, scale, zero_point = node.args
    assert isinstance(x, fx.Node)
    return _Operation("dequantize", (x,), (scale, zero_point))


def _flatten(node: fx.Node, _: fx.GraphModule) -> _Operation | None:
    x, *dims = node.args
    assert isinstance(x, fx.Node)
    rank = _rank(x)
    start, end = (*dims, *(0, -1)[len(dims) :])
    if rank is None or rank < 2 or start != 1 or end not in (-1, rank - 1):
        return None
    return _Operation("flatten", (x,), ())


def _slice(node: fx.Node, _: fx.GraphModule) -> _Operation | None:
    x, dim, first, last, *step = node.args
    assert isinstance(x, fx.Node)
    if _rank(x) != 4 or dim != 1 or step not in ([], [1]) or not isinstance(last, int):
        return None
    assert isinstance(first, int)
    channels = x.meta[_SHAPE][1]
    return _Operation("slice", (x,), tuple(slice(first, last).indices(channels)[:2]))


def _channel_shuffle(node: fx.Node, _: fx.GraphModule) -> _Operation | None:
    x, groups = node.args
    assert isinstance(x, fx.Node)
    return _Operation("channel_shuffle", (x,), (groups,))


def _lookup(node: fx.Node, graph_module: fx.GraphModule) -> _Operation | None:
    x, table = node.args
    source = _table(table, graph_module)
    if source is None:
        return None
    assert isinstance(x, fx.Node)
    return _Operation("int8_lookup", (x,), (_SOURCE,), (source,))


def _max_pool(node: fx.Node, _: fx.GraphModule) -> _Operation | None:
    x, *pairs, ceil_mode = node.args
    assert isinstance(x, fx.Node)
    return _Operation("int8_max_pool2d", (x,), (*map(_pair, pairs), bool(ceil_mode)))


def _avg_pool(node: fx.Node, _: fx.GraphModule) -> _Operation | None:
    x, kernel, stride, padding, ceil_mode, include_pad, *numbers = node.args
    assert isinstance(x, fx.Node)
    pairs = (_pair(kernel), _pair(stride), _pair(padding))
    flags = (bool(ceil_mode), bool(include_pad))
    return _Operation("int8_avg_pool2d", (x,), (*pairs, *flags, *numbers))


def _adaptive_avg_pool(node: fx.Node, _: fx.GraphModule) -> _Operation | None:
    x, size, *numbers = node.args
    assert isinstance(x, fx.Node)
    return _Operation("int8_adaptive_avg_pool2d", (x,), (_pair(size), *numbers))


def _add(node: fx.Node, graph_module: fx.GraphModule) -> _Operation | None:
    x, y, *numbers, table = node.args
    assert isinstance(x, fx.Node) and isinstance(y, fx.Node)
    if table is None:
        return _Operation("int8_add", (x, y), (*numbers, -1))
    source = _table(table, graph_module)
    if source is None:
        return None
    return _Operation("int8_add", (x, y), (*numbers, _SOURCE), (source,))


def _mul(node: fx.Node, _: fx.GraphModule) -> _Operation | None:
    x, y, *numbers = node.args
    assert isinstance(x, fx.Node) and isinstance(y, fx.Node)
    return _Operation("int8_mul", (x, y), tuple(numbers))


def _cat(node: fx.Node, _: fx.GraphModule) -> _Operation | None:
    parts, dim, multipliers, zero_points, out_zero_point = node.args
    assert isinstance(parts, (list, tuple))
    # In NHWC memory the other dimensions' order is not the engine's.
    if _rank(parts[0]) is None or (_rank(parts[0]) == 4 and dim not in (0, 1)):
        return None
    numbers = (dim, tuple(multipliers), tuple(zero_points), out_zero_point)
    return _Operation("int8_cat", tuple(parts), numbers)


_FUNCTIONS: Mapping[Any, Callable[[fx.Node, fx.GraphModule], _Operation | None]] = {
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
}


def _operation(node: fx.Node, graph_module: fx.GraphModule) -> _Operation | None:
    """Return node as a step of the engine, None when it has none."""
    if node.op == "call_module":
        return _packed_module(graph_module.get_submodule(str(node.target)), node)
    if node.op == "call_function" and not node.kwargs:
        make = _FUNCTIONS.get(node.target)
        moves = node.target in (aten.slice.Tensor, aten.channel_shuffle.default)
        if make is None or (moves and not _is_uint8(node)):
            return None
        return make(node, graph_module)
    return None


class _Support(OperatorSupportBase):
    def __init__(self, graph_module: fx.GraphModule) -> None:
        self._graph_module = graph_module

    def is_node_supported(self, submodules: Mapping[str, nn.Module], node: fx.Node) -> bool:
        """Return True when node is a step of the engine."""
        if node.op == "get_attr":  # belongs to the ops that name it, if they all are steps
            return _table(node, self._graph_module) is not None and all(
                _operation(user, self._graph_module) is not None for user in node.users
            )
        return _operation(node, self._graph_module) is not None


def with_regions(
    lowered: fx.GraphModule, inputs: Sequence[Any]
) -> tuple[fx.GraphModule, list[RegionModule], Any]:
    """Return a graph module in which regions are RegionModules, those, and lowered(*inputs).

    lowered is untouched; both share the packed modules. The list is empty when no region is worth a
    call.
    """
    graph_module = fx.GraphModule(lowered, _copied(lowered))
    result = _Shapes(graph_module).run(*inputs)
    _channel_slices(graph_module.graph)
    graph_module.recompile()
    partitioner = CapabilityBasedPartitioner(
        graph_module, _Support(graph_module), allows_single_node_partition=True
    )
    partitions = [p for p in partitioner.propose_partitions() if _is_worth(p.nodes)]
    if not partitions:
        return graph_module, [], result
    fused = partitioner.fuse_partitions(partitions, prefix="region_")
    regions = []
    for node in fused.graph.nodes:
        if node.op == "call_module" and str(node.target).startswith("region_"):
            part = fused.get_submodule(str(node.target))
            assert isinstance(part, fx.GraphModule)
            region = _region_module(part)
            fused.set_submodule(str(node.target), region)
            regions.append(region)
    share_tensors(fused, lowered)
    fused.recompile()
    return fused, regions, result


def share_tensors(fused: fx.GraphModule, lowered: fx.GraphModule) -> None:
    """Let both graphs read the tensors they name from one place.

    Copies and loaded state replace them there: a tensor of fused's own would stay the old one.
    """
    if TENSORS in fused._modules:
        fused._modules[TENSORS] = lowered._modules[TENSORS]


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
    steps: list[Step] = []
    sources: list[Any] = []
    inputs: list[int] = []
    outputs: list[int] = []
    for node in part.graph.nodes:
        if node.op == "placeholder":
            values[node] = len(values)
            inputs.append(values[node])
        elif node.op == "output":
            results = node.args[0]
            results = results if isinstance(results, (tuple, list)) else [results]
            outputs = [values[r] for r in results]
        elif node.op == "get_attr":
            continue
        else:
            operation = _operation(node, part)
            assert operation is not None, node.format_node()
            values[node] = len(values)
            new = iter(range(len(sources), len(sources) + len(operation.sources)))
            sources += operation.sources
            arguments = tuple(next(new) if a is _SOURCE else a for a in operation.arguments)
            reads = tuple(values[r] for r in operation.reads)
            steps.append(Step(operation.kind, values[node], reads, arguments))
    return RegionModule(renumbered(steps, inputs, outputs), sources, part)


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


__all__ = ["checked_regions", "share_tensors"]
