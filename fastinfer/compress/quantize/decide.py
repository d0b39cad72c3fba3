"""From calibration statistics to a plan for every layer and operation between layers."""

from __future__ import annotations

from typing import Any

from torch import fx

from fastinfer.compress.quantize.between import int8_betweens
from fastinfer.compress.quantize.calibrate import Calibrator
from fastinfer.compress.quantize.fold_between import fold_between
from fastinfer.compress.quantize.maps import Maps
from fastinfer.compress.quantize.precision import STATIC, choose_precision
from fastinfer.compress.quantize.weights import fold_static
from fastinfer.graph.layer import Layer
from fastinfer.program import BetweenPlan, LayerPlan, Program
from fastinfer.types import QuantConfig
from fastinfer.types.quant import QuantSpec


def quant_config(precision: str, observer: str, per_token: bool) -> QuantConfig | None:
    """Return the QuantConfig of a precision, None for float ones."""
    if precision == "int8":
        return QuantConfig(observer=observer)
    if precision == "int8-dynamic":
        granularity = "per_token" if per_token else "per_tensor"
        return QuantConfig(activation=QuantSpec("uint8", granularity, False), mode="dynamic")
    if precision == "int8-weight-only":
        return QuantConfig(activation=None, mode="weight_only")
    return None


def decide(program: Program, calibrator: Calibrator, config: Any) -> Program:
    """Return the program with a LayerPlan for every Layer, a BetweenPlan for what lies between.

    Static layers get the maps of their input, residual and output; a layer whose result nothing
    reads in int8 answers in float.
    """
    layers = calibrator.layers
    chosen: dict[fx.Node, tuple[str, str]] = {}
    for node, layer in layers.items():
        source = node.args[0]
        assert isinstance(source, fx.Node)
        statistics = calibrator.statistics.get(source.name)
        shape = statistics.shape if statistics is not None else None
        chosen[node] = choose_precision(str(node.target), layer, shape, config)
        if chosen[node][0] == STATIC and not _is_finite(node, calibrator):
            chosen[node] = ("fp32", "it meets NaN or infinity on the calibration data")
    return plan_layers(program, calibrator, config, chosen)


def _is_finite(node: fx.Node, calibrator: Calibrator) -> bool:
    """Return True when everything seen of a layer's inputs and outputs is finite."""
    names = [*(n.name for n in node.all_input_nodes), node.name, f"{node.name}:preactivation"]
    seen = [calibrator.statistics[name] for name in names if name in calibrator.statistics]
    return all(statistics.is_finite for statistics in seen)


def plan_layers(
    program: Program,
    calibrator: Calibrator,
    config: Any,
    chosen: dict[fx.Node, tuple[str, str]],
    held: frozenset[str] = frozenset(),
) -> Program:
    """Return the program with plans for the chosen (precision, reason) of each layer node.

    held: names of operations between layers that stay float.
    """
    layers = calibrator.layers
    static = frozenset(node for node, (precision, _) in chosen.items() if precision == STATIC)
    betweens = int8_betweens(calibrator, static, held)
    maps = Maps(calibrator, layers, static, betweens, config)
    plan: dict[str, LayerPlan] = {}
    for node, layer in layers.items():
        precision, reason = chosen[node]
        quant = quant_config(precision, calibrator.observer, layer.spec.kind == "linear")
        entry = LayerPlan(precision, quant, reason=reason)
        if precision == STATIC:
            entry = _static_plan(node, layer, maps, entry)
            try:
                fold_static(layer, entry, program.weights)
            except ValueError as error:
                # Leaving a layer out changes its neighbours' maps: plan again without it.
                return plan_layers(
                    program, calibrator, config, {**chosen, node: ("fp32", str(error))}, held
                )
        plan[str(node.target)] = entry
    plans: dict[str, BetweenPlan] = {}
    for node, between in betweens.items():
        plans[node.name] = maps.between(node, between)
        try:
            fold_between(between.spec, plans[node.name])
        except ValueError:
            return plan_layers(program, calibrator, config, chosen, held | {node.name})
    return program.with_plan(plan, plans)


def _static_plan(node: fx.Node, layer: Layer, maps: Maps, entry: LayerPlan) -> LayerPlan:
    """Return a static layer's plan with its affine maps."""
    source = node.args[0]
    assert isinstance(source, fx.Node)
    residual = node.args[1] if len(node.args) > 1 else None
    output = preactivation = None
    if maps.is_quantized_output(node):
        output = maps.of(node)
        if not layer.spec.epilogue.activation.is_clamp:
            preactivation = maps.preactivation(node)
    return LayerPlan(
        entry.precision,
        entry.quant,
        input=maps.of(source),
        residual=maps.of(residual)
        if output is not None and isinstance(residual, fx.Node)
        else None,
        output=output,
        preactivation=preactivation,
        reason=entry.reason,
    )
