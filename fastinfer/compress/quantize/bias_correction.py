"""Sequential bias correction: the mean error of every int8 layer moves into its bias.

Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction",
section 4.2, with means measured instead of derived.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx

from fastinfer.compress.quantize.calibrate import LayerResult, channel_sums, layer_result
from fastinfer.compress.quantize.power import Power
from fastinfer.compress.quantize.simulate import SimulatedLayer, simulate_between
from fastinfer.graph.between import find_betweens
from fastinfer.graph.layer import Layer
from fastinfer.program import LayerPlan, Program
from fastinfer.types import TensorQuant

#: A mean of fewer values fits the samples, not the error: one sample would look perfect.
MIN_VALUES = 16

SIMULATED = ("int8", "int8-dynamic", "int8-weight-only")


@dataclass(frozen=True)
class SimulationResult:
    """What one pass over both graphs gave: corrections [N] and errors in dB by layer name."""

    corrections: dict[str, Tensor]
    layer_sqnr_db: dict[str, float]
    output_sqnr_db: float


def _tensors(value: Any) -> list[Tensor]:
    """Return the float tensors inside an output."""
    if isinstance(value, Tensor):
        return [value] if value.is_floating_point() else []
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [t for item in value for t in _tensors(item)]
    return []


class _PairedRun:
    """Runs the float and the simulated graph together, node by node, over all samples."""

    def __init__(self, program: Program, *, correct: bool) -> None:
        self._program = program
        self._module = program.graph_module
        self._correct = correct
        self._runner = fx.Interpreter(self._module)
        self._betweens = {
            node: between
            for node, between in find_betweens(self._module.graph).items()
            if node.name in program.between
        }
        #: On the codes of which map a node's simulated value is.
        self._codes: dict[fx.Node, TensorQuant] = {}
        self.corrections: dict[str, Tensor] = {}
        self.sqnr: dict[str, float] = {}
        self.output = Power()

    def run(
        self, samples: Sequence[tuple[Any, ...]], results: Sequence[Mapping[str, LayerResult]] = ()
    ) -> None:
        """Propagate every sample through both graphs; results: of float layers, where known."""
        self._results = results or [{}] * len(samples)
        graph = self._module.graph
        last_use: dict[fx.Node, fx.Node] = {}
        for node in graph.nodes:
            for source in self._sources(node):
                last_use[source] = node
        floats: list[dict[fx.Node, Any]] = [{} for _ in samples]
        quants: list[dict[fx.Node, Any]] = [{} for _ in samples]
        position = 0
        for node in graph.nodes:
            if node.op == "placeholder":
                for index, values in enumerate(samples):
                    floats[index][node] = quants[index][node] = values[position]
                position += 1
            elif node.op == "output":
                for f, q in zip(floats, quants, strict=True):
                    wanted = _tensors(fx.node.map_arg(node.args[0], lambda n, f=f: f[n]))
                    got = _tensors(fx.node.map_arg(node.args[0], lambda n, q=q: q[n]))
                    for a, b in zip(wanted, got, strict=True):
                        self.output.add(a, b)
            else:
                self._run_node(node, floats, quants)
            for source in self._sources(node):
                if last_use[source] is node:
                    for env in (*floats, *quants):
                        env.pop(source, None)

    def _sources(self, node: fx.Node) -> list[fx.Node]:
        """Return what running a node reads: an operation with its activation reads before it."""
        between = self._betweens.get(node)
        return [*node.all_input_nodes, *(between.inputs if between is not None else ())]

    def _run_node(
        self, node: fx.Node, floats: list[dict[fx.Node, Any]], quants: list[dict[fx.Node, Any]]
    ) -> None:
        layer = None
        if node.op == "call_module":
            module = self._module.get_submodule(str(node.target))
            layer = module if isinstance(module, Layer) else None
        plan = self._program.plan.get(str(node.target)) if layer is not None else None
        if layer is not None and plan is not None and plan.precision in SIMULATED:
            self._run_layer(node, layer, plan, floats, quants)
            return
        between = self._betweens.get(node)
        if between is not None:
            entry = self._program.between[node.name]
            codes = [self._codes.get(n) for n in between.inputs]
            self._codes[node] = entry.output
        for f, q, known in zip(floats, quants, self._results, strict=True):
            result = known.get(node.name)
            f[node] = self._call(node, f) if result is None else result.output
            if between is not None:
                xs = [q[n] for n in between.inputs]
                q[node] = simulate_between(between.spec, entry, xs, f[node], codes)
                continue
            same = all(f[n] is q[n] for n in node.all_input_nodes)
            q[node] = f[node] if same else self._call(node, q)

    def _call(self, node: fx.Node, env: dict[fx.Node, Any]) -> Any:
        args = fx.node.map_arg(node.args, lambda n: env[n])
        kwargs = fx.node.map_arg(node.kwargs, lambda n: env[n])
        return getattr(self._runner, node.op)(node.target, args, kwargs)

    def _run_layer(
        self,
        node: fx.Node,
        layer: Layer,
        plan: LayerPlan,
        floats: list[dict[fx.Node, Any]],
        quants: list[dict[fx.Node, Any]],
    ) -> None:
        name, kind = str(node.target), layer.spec.kind
        simulated = SimulatedLayer(layer, plan, self._program.weights)
        device = layer.weight.device
        error = torch.zeros(layer.spec.out_features, dtype=torch.float64, device=device)
        count = 0
        pending: list[Tensor] = []
        residual = node.args[1] if len(node.args) > 1 else None
        codes = self._codes.get(node.args[0]), self._codes.get(residual)
        if plan.output is not None:
            self._codes[node] = plan.output
        for f, q, known in zip(floats, quants, self._results, strict=True):
            result = known.get(node.name)
            other = None if residual is None else f[residual]
            if result is None:
                result = layer_result(layer, f[node.args[0]], other)
            f[node] = result.output
            other = None if residual is None else q[residual]
            got = simulated.accumulate(q[node.args[0]], other, codes)
            error += (result.sums - channel_sums(got, kind)).double()
            count += got.numel() // max(layer.spec.out_features, 1)
            pending.append(got)
        correction = None
        if self._correct and plan.precision == "int8" and count >= MIN_VALUES:
            correction = (error / count).float()
            self.corrections[name] = correction
        elif plan.bias_correction:
            correction = torch.tensor(plan.bias_correction, device=device)
        power = Power()
        for f, q, got in zip(floats, quants, pending, strict=True):
            q[node] = simulated.finish(got, correction)
            power.add(f[node], q[node])
        self.sqnr[name] = power.db


def simulate(
    program: Program,
    samples: Sequence[tuple[Any, ...]],
    results: Sequence[Mapping[str, LayerResult]] = (),
) -> SimulationResult:
    """Return the error of the program's plan, layer by layer and at the output, on samples.

    results: what float layers answered on each sample, by node name, where that is known.
    """
    run = _PairedRun(program, correct=False)
    with torch.no_grad():
        run.run(samples, results)
    return SimulationResult({}, run.sqnr, run.output.db)


def correct_biases(
    program: Program,
    samples: Sequence[tuple[Any, ...]],
    results: Sequence[Mapping[str, LayerResult]] = (),
) -> tuple[Program, SimulationResult]:
    """Return the program with bias corrections in its plan, and the error that is left.

    samples: flat inputs of the graph; all of them are held, in both precisions, layer by layer.
    results: as of `simulate`.
    """
    run = _PairedRun(program, correct=True)
    with torch.no_grad():
        run.run(samples, results)
    plan = {
        name: replace(entry, bias_correction=tuple(run.corrections[name].double().tolist()))
        if name in run.corrections
        else entry
        for name, entry in program.plan.items()
    }
    return program.with_plan(plan), SimulationResult(run.corrections, run.sqnr, run.output.db)
