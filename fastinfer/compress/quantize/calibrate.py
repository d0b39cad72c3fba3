"""Calibration: run the float graph over data and record the ranges of what may be int8."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from fastinfer.compress.quantize.batches import (
    Flatten,
    check_finite,
    flatten_in_order,
    read_batches,
)
from fastinfer.compress.quantize.observers import Observer, make_observer
from fastinfer.compress.quantize.precision import STATIC, requested_precision
from fastinfer.graph.between import Between, find_betweens
from fastinfer.graph.in_float32 import values_in_float32
from fastinfer.graph.layer import Layer, apply_activation
from fastinfer.graph.match import dims
from fastinfer.program import Program

#: Samples kept for bias correction, timing and the accuracy guard.
KEPT_SAMPLES = 32
#: Elements of one graph value kept at most, summed over samples and values: 256 MB of float32.
#: As many elements of layers' results are kept.
KEPT_ELEMENTS = 64 * 2**20


@dataclass(frozen=True)
class LayerResult:
    """What a layer answered on a sample: its output, and the sums before its activation, [N]."""

    output: Tensor
    sums: Tensor


def layer_nodes(graph_module: fx.GraphModule) -> list[tuple[fx.Node, Layer]]:
    """Return the graph's layer calls in order, each with its module."""
    found = []
    for node in graph_module.graph.nodes:
        if node.op == "call_module":
            module = graph_module.get_submodule(str(node.target))
            if isinstance(module, Layer):
                found.append((node, module))
    return found


def channel_axis(shape: tuple[int, ...], kind: str) -> int:
    """Return the axis that holds channels for a layer of this kind."""
    return len(shape) - 1 if kind == "linear" else 1


def channel_sums(x: Tensor, kind: str) -> Tensor:
    """Return the sum over each channel of a layer's output of this kind, [N]."""
    axis = channel_axis(tuple(x.shape), kind)
    dims = [d for d in range(x.dim()) if d != axis]
    return x.sum(dims) if dims else x


def layer_result(layer: Layer, x: Tensor, residual: Tensor | None = None) -> LayerResult:
    """Return what a layer answers."""
    before = _before_activation(layer, x, residual)
    output = apply_activation(layer.spec.epilogue.activation, before)
    return LayerResult(output, channel_sums(before, layer.spec.kind))


def _before_activation(layer: Layer, x: Tensor, residual: Tensor | None = None) -> Tensor:
    y = layer.accumulate(x)
    return y if residual is None else y + residual


@dataclass
class TensorStatistics:
    """What calibration learned of one tensor: whole and per-channel ranges, and its shape."""

    shape: tuple[int, ...]
    axis: int
    whole: Observer
    channels: Observer
    _whole_range: tuple[float, float] | None = None
    _channel_range: tuple[Tensor, Tensor] | None = None

    def observe(self, x: Tensor) -> None:
        """Add one batch."""
        self._whole_range = self._channel_range = None
        self.whole.observe(x)
        self.channels.observe(x)

    def whole_range(self) -> tuple[float, float]:
        """Return (lo, hi) of the whole tensor, computed once: some observers search for it."""
        if self._whole_range is None:
            lo, hi = self.whole.range()
            self._whole_range = float(lo), float(hi)
        return self._whole_range

    def channel_range(self) -> tuple[Tensor, Tensor]:
        """Return (lo, hi) of the channels, [C] float64 on the CPU, computed once as well."""
        if self._channel_range is None:
            lo, hi = self.channels.range()
            self._channel_range = lo.cpu(), hi.cpu()
        return self._channel_range

    @property
    def is_finite(self) -> bool:
        """True when neither NaN nor infinity was seen."""
        return all(math.isfinite(bound) for bound in self.whole_range())


class _Recorder(fx.Interpreter):
    """Interprets the float graph, handing watched values to the calibrator."""

    def __init__(self, graph_module: fx.GraphModule, calibrator: Calibrator) -> None:
        super().__init__(graph_module)
        self._calibrator = calibrator

    def run_node(self, n: fx.Node) -> Any:
        layer = self._calibrator.layers.get(n)
        if layer is None:
            value = super().run_node(n)
        else:
            args, _ = self.fetch_args_kwargs_from_env(n)
            value = self._calibrator.run_layer(n, layer, args)
        if n in self._calibrator.watched and isinstance(value, Tensor):
            self._calibrator.observe(n.name, value, self._calibrator.watched[n])
        if isinstance(value, Tensor):
            self._calibrator.largest = max(self._calibrator.largest, value.numel())
        return value


class Calibrator:
    """One pass over calibration data: ranges per tensor, and a few samples kept.

    Args:
        program: its graph's Layer calls are what is observed.
        config: `observer` names the observer.
        example: (args, kwargs), used when `run` gets no data.
        flatten: maps (args, kwargs) to the graph's placeholders.
    """

    def __init__(
        self,
        program: Program,
        config: Any,
        *,
        example: tuple[tuple[Any, ...], dict[str, Any]] | None = None,
        flatten: Flatten | None = None,
    ) -> None:
        self.graph_module = program.graph_module
        self.observer = getattr(config, "observer", "minmax")
        self.from_example = False
        #: Whether calls are of float16 or bfloat16, and the graph is not.
        self.widens = False
        self.samples: list[tuple[Any, ...]] = []
        #: What layers answered on each of the samples, by node name; not all are kept.
        self.results: list[dict[str, LayerResult]] = []
        self._results: dict[str, LayerResult] = {}
        self._results_left = 0
        self.statistics: dict[str, TensorStatistics] = {}
        self.largest = 1
        self.n_samples = 0
        self._example = example
        self._flatten = flatten or flatten_in_order
        self._n_inputs = sum(n.op == "placeholder" for n in self.graph_module.graph.nodes)
        self.layers = dict(layer_nodes(self.graph_module))
        self.watched: dict[fx.Node, str] = {}
        for node, layer in self.layers.items():
            self.watched.setdefault(node, layer.spec.kind)
            for source in node.args[:2]:
                if isinstance(source, fx.Node):
                    self.watched.setdefault(source, layer.spec.kind)
        self.betweens: dict[fx.Node, Between] = {}
        if requested_precision(config) == STATIC:
            self.betweens = find_betweens(self.graph_module.graph)
        for node, between in self.betweens.items():
            inner = () if between.inner is None else (between.inner,)
            for value in (node, *between.inputs, *inner):
                self.watched.setdefault(
                    value, "conv2d" if len(dims(value) or ()) == 4 else "linear"
                )

    def run(self, calibration: Iterable[Any] | None = None) -> Calibrator:
        """Observe every batch of calibration, or the example when it is None; return self.

        Results of layers are kept for the samples, which spares the accuracy guard to run them.

        Raises:
            ValueError: no batch, NaN in a batch (named), or neither data nor an example.
        """
        self._results_left = KEPT_ELEMENTS
        batches: Iterable[tuple[Any, ...]]
        if calibration is None:
            if self._example is None:
                raise ValueError("calibration: expected data or example inputs, got neither")
            self.from_example = True
            batches = [tuple(self._flatten(*self._example))]
            check_finite(next(iter(batches)), 0)
        else:
            batches = read_batches(calibration, self._n_inputs, self._flatten)
        for values in batches:
            self.add(values)
        return self

    def add(self, values: tuple[Any, ...]) -> None:
        """Observe one call. values: the graph's inputs, which may be kept."""
        values = values_in_float32(values) if self.widens else values
        self.largest = 1
        self._results = {}
        with torch.no_grad():
            _Recorder(self.graph_module, self).run(*values)
        self._keep(values)

    def run_layer(self, node: fx.Node, layer: Layer, args: tuple[Any, ...]) -> Tensor:
        """Return the layer's output; observe what is inside it when its activation is a table."""
        before = _before_activation(layer, *args)
        activation, kind = layer.spec.epilogue.activation, layer.spec.kind
        if not activation.is_clamp:
            self.observe(f"{node.name}:preactivation", before, kind)
        output = apply_activation(activation, before)
        if output.numel() <= self._results_left:
            self._results_left -= output.numel()
            self._results[node.name] = LayerResult(output, channel_sums(before, kind))
        return output

    def observe(self, name: str, value: Tensor, kind: str) -> None:
        """Add one value of the tensor called name."""
        if not value.is_floating_point() or value.dim() == 0:
            return
        statistics = self.statistics.get(name)
        if statistics is None:
            axis = channel_axis(tuple(value.shape), kind)
            statistics = TensorStatistics(
                tuple(value.shape),
                axis,
                make_observer(self.observer),
                make_observer(self.observer, axis),
            )
            self.statistics[name] = statistics
        statistics.observe(value)

    def _keep(self, values: tuple[Any, ...]) -> None:
        """Keep a batch's samples until enough are held."""
        sizes = {v.shape[0] for v in values if isinstance(v, Tensor) and v.dim() > 0}
        size = sizes.pop() if len(sizes) == 1 else 0
        is_wanted = not self.samples or (
            self.n_samples < KEPT_SAMPLES and self.largest * (len(self.samples) + 1) < KEPT_ELEMENTS
        )
        if is_wanted:
            self.samples.append(values)
            self.results.append(self._results)
            self.n_samples += max(size, 1)
        else:
            self._results, self._results_left = {}, 0
