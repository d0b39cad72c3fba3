"""From a planned program to a graph that runs on packed modules."""

from __future__ import annotations

import copy

import torch
from torch import fx

from fastinfer.compress.quantize.fold_between import fold_between
from fastinfer.graph.between import Between, find_betweens
from fastinfer.graph.layer import Layer
from fastinfer.graph.match import add_constant, dims, dtype
from fastinfer.lower.lowerings import lower_layer
from fastinfer.program import BetweenPlan, LayerPlan, Program
from fastinfer.types import TensorQuant
from fastinfer.types.device import HALVES


def lower(program: Program) -> fx.GraphModule:
    """Return a new graph module in which every planned Layer is a packed module.

    Planned operations between layers become calls of torch.ops.fastinfer.int8_*. Borders between
    float and int8 are call_function nodes of torch.ops.fastinfer.quantize and dequantize; tensors
    made in int8 go straight to what reads them so. The program is left as it is; what has no plan
    stays float.
    """
    graph = copy.deepcopy(program.graph_module.graph)
    lowered = fx.GraphModule(program.graph_module, graph)
    # The constructor shares submodules' parents with nobody, but makes them in order of use.
    lowered.meta.update(program.graph_module.meta)
    _Borders(lowered, program).place()
    for name, plan in program.plan.items():
        layer = lowered.get_submodule(name)
        if isinstance(layer, Layer):
            module = lower_layer(layer, plan, program.weights)
            if module is not layer:  # a layer that stays float is the program's own
                module.output_quant = plan.output  # what `compare` needs to read a uint8 result
            lowered.set_submodule(name, module)
    lowered.graph.lint()
    lowered.recompile()
    return lowered


class _Borders:
    """Places quantize and dequantize nodes, each once per tensor and map, and int8 operations."""

    def __init__(self, module: fx.GraphModule, program: Program) -> None:
        self._module, self._graph = module, module.graph
        self._plans: dict[fx.Node, LayerPlan] = {}
        for node in self._graph.nodes:
            plan = program.plan.get(str(node.target)) if node.op == "call_module" else None
            if plan is not None:
                self._plans[node] = plan
        self._kinds = {
            node: module.get_submodule(str(node.target)).spec.kind for node in self._plans
        }
        self._betweens: dict[fx.Node, tuple[Between, BetweenPlan]] = {
            node: (between, program.between[node.name])
            for node, between in find_betweens(self._graph).items()
            if node.name in program.between
        }
        self._inner = {between.inner for between, _ in self._betweens.values()}
        #: The int8 call in the place of an operation's node, and the maps of these calls.
        self._made: dict[fx.Node, fx.Node] = {}
        self._maps: dict[fx.Node, TensorQuant] = {}
        self._quantized: dict[tuple[fx.Node, TensorQuant], fx.Node] = {}
        self._floats: dict[fx.Node, fx.Node] = {}

    def _code(self, node: fx.Node) -> TensorQuant | None:
        """Return the map of a node's uint8 result, None when it is float."""
        plan = self._plans.get(node)
        if plan is None:
            return self._maps.get(node)
        return plan.output if plan.precision == "int8" else None

    def place(self) -> None:
        """Rewire every edge that crosses a border."""
        for node in list(self._graph.nodes):
            plan = self._plans.get(node)
            if node in self._betweens:
                self._place_between(node, *self._betweens[node])
            elif node in self._inner:
                continue  # its activation's node stands for both
            elif plan is not None and plan.precision == "int8":
                assert plan.input is not None
                wanted = [plan.input, plan.residual if plan.output is not None else None]
                args = [
                    self._as(source, quant, self._kinds[node] == "conv2d")
                    for source, quant in zip(node.args, wanted, strict=False)
                ]
                node.args = tuple(args)
            else:
                node.args = fx.node.map_arg(node.args, self._as_float)
                node.kwargs = fx.node.map_arg(node.kwargs, self._as_float)

    def _place_between(self, node: fx.Node, between: Between, plan: BetweenPlan) -> None:
        """Put the int8 call in the place of an operation and of the activation behind it."""
        folded = fold_between(between.spec, plan)
        sources = [self._made.get(source, source) for source in between.inputs]
        args: list[object] = [
            self._as(source, quant, len(dims(source) or ()) == 4)
            for source, quant in zip(sources, plan.inputs, strict=True)
        ]
        if between.spec.kind == "cat":
            args = [args]
        if between.spec.kind == "upsample":
            args += [None, list(between.size)]
        args += folded.numbers
        if folded.table is not None:
            table = folded.table.to(node.meta["val"].device)
            args.append(add_constant(self._module, node, f"{node.name}_table", table))
        elif between.spec.kind == "add":
            args.append(None)
        with self._graph.inserting_before(node):
            op = getattr(torch.ops.fastinfer, folded.op).default
            made = self._graph.call_function(op, tuple(args))  # type: ignore[arg-type]
            if not between.spec.keepdim:
                made = self._graph.call_function(torch.ops.aten.flatten.using_ints, (made, 1))
        made.meta = dict(node.meta)
        node.replace_all_uses_with(made)
        self._graph.erase_node(node)
        if between.inner is not None:
            self._graph.erase_node(between.inner)
        self._made[node], self._maps[made] = made, plan.output

    def _as(self, source: fx.Node, quant: TensorQuant | None, nhwc: bool) -> fx.Node:
        """Return source with the wanted map, or as float when that is None."""
        if quant is None:
            return self._as_float(source)
        if self._code(source) == quant:
            return source
        key = (source, quant)
        if key not in self._quantized:
            value = self._as_float(source)
            if not quant.is_per_tensor:
                raise AssertionError(f"{source.name}: only layers make per-channel int8 tensors")
            with self._graph.inserting_after(value):
                self._quantized[key] = self._graph.call_function(
                    torch.ops.fastinfer.quantize.default,
                    (value, quant.scale[0], quant.zero_point, nhwc),
                )
        return self._quantized[key]

    def _as_float(self, source: fx.Node) -> fx.Node:
        quant = self._code(source)
        if quant is None:
            return source
        if source not in self._floats:
            if not quant.is_per_tensor:
                raise AssertionError(f"{source.name}: only layers read per-channel int8 tensors")
            with self._graph.inserting_after(source):
                self._floats[source] = self._graph.call_function(
                    torch.ops.fastinfer.dequantize.default,
                    (source, quant.scale[0], quant.zero_point),
                )
            if dtype(source) in HALVES:  # for cast_halves
                self._floats[source].meta["val"] = source.meta["val"]
        return self._floats[source]
