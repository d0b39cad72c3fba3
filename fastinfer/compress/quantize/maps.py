"""The affine map of every tensor that int8 makes or reads."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx

from fastinfer.compress.quantize import affine_maps
from fastinfer.compress.quantize.calibrate import Calibrator
from fastinfer.compress.quantize.tensor_groups import (
    TensorGroup,
    connected_cats,
    find_groups,
    split_cats,
)
from fastinfer.compress.quantize.weights import weight_extent
from fastinfer.graph.between import Between
from fastinfer.graph.layer import Layer
from fastinfer.program import BetweenPlan
from fastinfer.types import TensorQuant

SMOOTHING_ALPHA = 0.5
#: Ranges of single channels come from few photos: leave this much room above what was seen.
CHANNEL_MARGIN = 1.1


class Maps:
    """The affine map of every group, made when first asked for."""

    def __init__(
        self,
        calibrator: Calibrator,
        layers: dict[fx.Node, Layer],
        static: frozenset[fx.Node],
        betweens: Mapping[fx.Node, Between],
        config: Any,
    ) -> None:
        self._statistics = calibrator.statistics
        self._layers = layers
        self._per_channel = getattr(config, "per_channel", True)
        self._betweens = betweens
        self._split = split_cats(betweens, static) if self._per_channel else frozenset()
        graph = calibrator.graph_module.graph
        self._groups = find_groups(graph, layers, static, betweens, self._split, self._range)
        self._made: dict[int, TensorQuant] = {}
        self._zero_points: dict[fx.Node, int] = {}  # of split cats
        self._agree_on_zero_points()

    def is_quantized_output(self, node: fx.Node) -> bool:
        """Return True when something reads the layer's output as int8."""
        seen: set[int] = set()
        pending = [node]
        while pending:
            # A group may read its own tensors as residuals, through a reshape.
            group = self._groups[pending.pop()]
            if group.inputs_of or group.betweens:
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

    def between(self, node: fx.Node, between: Between) -> BetweenPlan:
        """Return the maps of an int8 operation between layers."""
        before = None
        if between.inner is not None and not between.spec.activation.is_clamp:
            lo, hi = self._statistics[between.inner.name].whole_range()
            before = affine_maps.before_activation(between.spec.activation, lo, hi)
        inputs = tuple(self.of(source) for source in between.inputs)
        return BetweenPlan(inputs, self.of(node), before)

    def _agree_on_zero_points(self) -> None:
        """Give split cats that share parts, and parts that nothing else reads, one zero point.

        Such a part is rounded once, to the map in which every one of the cats copies its codes.
        """
        for cats in connected_cats(self._betweens, self._split):
            parts = [part for cat in cats for part in self._betweens[cat].inputs]
            groups = {id(self._groups[part]): self._groups[part] for part in parts}
            zero = affine_maps.common_zero_point([self.of(g.members[0]) for g in groups.values()])
            self._zero_points.update(dict.fromkeys(cats, zero))
            for key, group in groups.items():
                readers = {user for member in group.members for user in member.users}
                if readers <= self._split | set(group.members):
                    self._made[key] = affine_maps.with_zero_point(self._made[key], zero)

    def _range(self, node: fx.Node) -> tuple[float, float] | None:
        statistics = self._statistics.get(node.name)
        if statistics is None or not statistics.is_finite:
            return None
        return statistics.whole_range()

    def _make(self, group: TensorGroup) -> TensorQuant:
        if group.members[0] in self._split:
            cat = self._betweens[group.members[0]]
            parts, zero = (
                [self.of(part) for part in cat.inputs],
                self._zero_points[group.members[0]],
            )
            return affine_maps.joined(parts, cat.spec.sizes, zero)
        if self._per_channel and group.is_single and len(group.producers) == 1:
            quant = self._make_per_channel(group)
            if quant is not None:
                return quant
        ranges = [r for r in map(self._range, group.members) if r is not None]
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
        lo, hi = self._statistics[producer.name].channel_range()
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
