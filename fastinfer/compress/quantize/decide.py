"""From calibration statistics to one LayerPlan per layer."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, fx

from fastinfer.compress.quantize import affine_maps
from fastinfer.compress.quantize.calibrate import Calibrator
from fastinfer.compress.quantize.precision import STATIC, choose_precision
from fastinfer.compress.quantize.tensor_groups import TensorGroup, find_groups
from fastinfer.compress.quantize.weights import fold_static, weight_extent
from fastinfer.graph.layer import Layer
from fastinfer.program import LayerPlan, Program
from fastinfer.types import QuantConfig, TensorQuant
from fastinfer.types.quant import QuantSpec

SMOOTHING_ALPHA = 0.5
#: Ranges of single channels come from few photos: leave this much room above what was seen.
CHANNEL_MARGIN = 1.1


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


class _Maps:
    """The affine map of every group, made when first asked for."""

    def __init__(
        self,
        calibrator: Calibrator,
        layers: dict[fx.Node, Layer],
        static: frozenset[fx.Node],
        config: Any,
    ) -> None:
        self._statistics = calibrator.statistics
        self._layers = layers
        self._groups = find_groups(calibrator.graph_module.graph, layers, static)
        self._per_channel = getattr(config, "per_channel", True)
        self._made: dict[int, TensorQuant] = {}

    def is_quantized_output(self, node: fx.Node) -> bool:
        """Return True when some static layer reads the layer's output as int8."""
        seen: set[int] = set()
        pending = [node]
        while pending:
            # A group may read its own tensors as residuals, through a reshape.
            group = self._groups[pending.pop()]
            if group.inputs_of:
                return True
            if id(group) not in seen:
                seen.add(id(group))
                pending += group.residuals_of
        return False

    def of(self, node: fx.Node) -> TensorQuant:
        """Return the map of a tensor."""
        group = self._groups[node]
        if id(group) not in self._made:
            self._made[id(group)] = self._make(group)
        return self._made[id(group)]

    def preactivation(self, node: fx.Node) -> TensorQuant:
        """Return the map of a table layer's value before its activation."""
        lo, hi = self._statistics[f"{node.name}:preactivation"].whole_range()
        activation = self._layers[node].spec.epilogue.activation
        return affine_maps.before_activation(activation, lo, hi)

    def _make(self, group: TensorGroup) -> TensorQuant:
        if self._per_channel and group.is_single and len(group.producers) == 1:
            quant = self._make_per_channel(group)
            if quant is not None:
                return quant
        ranges = [
            self._statistics[m.name].whole_range()
            for m in group.members
            if m.name in self._statistics and self._statistics[m.name].is_finite
        ]
        return affine_maps.per_tensor(min(lo for lo, _ in ranges), max(hi for _, hi in ranges))

    def _make_per_channel(self, group: TensorGroup) -> TensorQuant | None:
        """Return the per-channel map of a tensor that only int8 layers touch, or None."""
        producer = group.producers[0]
        activation = self._layers[producer].spec.epilogue.activation
        if not activation.is_clamp or (not activation.is_identity and activation.params[0] != 0):
            return None
        # A float result adds a float residual, and dequantize knows one scale only.
        if not all(self.is_quantized_output(reader) for reader in group.residuals_of):
            return None
        lo, hi = self._statistics[producer.name].channels.range()
        if not bool(torch.isfinite(lo).all() and torch.isfinite(hi).all()):
            return None
        readers = [self._layers[node] for node in group.inputs_of]
        dense = [layer for layer in readers if not layer.spec.is_depthwise]
        extent: Tensor | None = None
        for layer in dense:
            mine = weight_extent(layer)
            extent = mine if extent is None else torch.maximum(extent, mine)
        if not activation.is_identity:
            limit = activation.params[1]
            width = affine_maps.widths(torch.zeros_like(hi), hi * CHANNEL_MARGIN)
            width = width.clamp(max=limit) if math.isfinite(limit) else width
            width = affine_maps.smoothing(width, extent, SMOOTHING_ALPHA)
            return affine_maps.per_channel_positive(width, limit)
        if all(layer.spec.padding == (0, 0) for layer in readers):
            width = affine_maps.widths(lo, hi) * CHANNEL_MARGIN
            width = affine_maps.smoothing(width, extent, SMOOTHING_ALPHA)
            return affine_maps.per_channel_shifted(lo, hi, width)
        return None


def decide(program: Program, calibrator: Calibrator, config: Any) -> Program:
    """Return the program with a LayerPlan for every Layer.

    Static layers get the maps of their input, residual and output; a layer whose result no static
    layer reads answers in float.
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
) -> Program:
    """Return the program with plans for the chosen (precision, reason) of each layer node."""
    layers = calibrator.layers
    static = frozenset(node for node, (precision, _) in chosen.items() if precision == STATIC)
    maps = _Maps(calibrator, layers, static, config)
    plan: dict[str, LayerPlan] = {}
    for node, layer in layers.items():
        precision, reason = chosen[node]
        quant = quant_config(precision, calibrator.observer, layer.spec.kind == "linear")
        entry = LayerPlan(precision, quant, reason=reason)
        if precision == STATIC:
            entry = _static_plan(node, layer, maps, entry)
            try:
                fold_static(layer, entry)
            except ValueError as error:
                # Leaving a layer out changes its neighbours' maps: plan again without it.
                return plan_layers(
                    program, calibrator, config, {**chosen, node: ("fp32", str(error))}
                )
        plan[str(node.target)] = entry
    return program.with_plan(plan)


def _static_plan(node: fx.Node, layer: Layer, maps: _Maps, entry: LayerPlan) -> LayerPlan:
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
