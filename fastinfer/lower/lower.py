"""From a planned program to a graph that runs on packed modules."""

from __future__ import annotations

import copy

import torch
from torch import fx

from fastinfer.graph.layer import Layer
from fastinfer.lower.lowerings import lower_layer
from fastinfer.program import LayerPlan, Program
from fastinfer.types import TensorQuant


def lower(program: Program) -> fx.GraphModule:
    """Return a new graph module in which every planned Layer is a packed module.

    Borders between float and int8 are call_function nodes of torch.ops.fastinfer.quantize and
    dequantize; tensors that a layer answers in int8 go straight to the layers that read them so.
    The program is left as it is; layers without a plan stay float.
    """
    graph = copy.deepcopy(program.graph_module.graph)
    lowered = fx.GraphModule(program.graph_module, graph)
    # The constructor shares submodules' parents with nobody, but makes them in order of use.
    lowered.meta.update(program.graph_module.meta)
    _Borders(lowered, program).place()
    for name, plan in program.plan.items():
        layer = lowered.get_submodule(name)
        if isinstance(layer, Layer):
            module = lower_layer(layer, plan)
            if module is not layer:  # a layer that stays float is the program's own
                module.output_quant = plan.output  # what `compare` needs to read a uint8 result
            lowered.set_submodule(name, module)
    lowered.graph.lint()
    lowered.recompile()
    return lowered


class _Borders:
    """Places quantize and dequantize nodes, each once per tensor and map."""

    def __init__(self, module: fx.GraphModule, program: Program) -> None:
        self._graph = module.graph
        self._plans: dict[fx.Node, LayerPlan] = {}
        for node in self._graph.nodes:
            plan = program.plan.get(str(node.target)) if node.op == "call_module" else None
            if plan is not None:
                self._plans[node] = plan
        self._kinds = {
            node: module.get_submodule(str(node.target)).spec.kind for node in self._plans
        }
        self._quantized: dict[tuple[fx.Node, TensorQuant], fx.Node] = {}
        self._floats: dict[fx.Node, fx.Node] = {}

    def _code(self, node: fx.Node) -> TensorQuant | None:
        """Return the map of a node's uint8 result, None when it is float."""
        plan = self._plans.get(node)
        return plan.output if plan is not None and plan.precision == "int8" else None

    def place(self) -> None:
        """Rewire every edge that crosses a border."""
        for node in list(self._graph.nodes):
            plan = self._plans.get(node)
            if plan is not None and plan.precision == "int8":
                assert plan.input is not None
                wanted = [plan.input, plan.residual if plan.output is not None else None]
                args = [
                    self._as(source, quant, self._kinds[node])
                    for source, quant in zip(node.args, wanted, strict=False)
                ]
                node.args = tuple(args)
            else:
                node.args = fx.node.map_arg(node.args, self._as_float)
                node.kwargs = fx.node.map_arg(node.kwargs, self._as_float)

    def _as(self, source: fx.Node, quant: TensorQuant | None, kind: str) -> fx.Node:
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
                    (value, quant.scale[0], quant.zero_point, kind == "conv2d"),
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
        return self._floats[source]
