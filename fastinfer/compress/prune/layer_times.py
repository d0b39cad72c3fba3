"""What each layer takes at each level, on the example's shapes; the clock is the caller's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from fastinfer.compress.prune.geometry import Geometry
from fastinfer.compress.prune.layer_errors import Level
from fastinfer.compress.prune.layers import PrunableLayer
from fastinfer.compress.prune.masks import largest_kept
from fastinfer.graph.match import attribute


@dataclass
class Latency:
    """A target in milliseconds for the converted model on the example, and how to measure.

    whole_ms: the model in int8. layers_ms: modules of one layer, all called with the same input;
    one figure each. known: what was measured already, by shape. chosen: the allocation that a first
    try has found to be the best of contenders, whose errors these are; later tries keep to it.
    """

    target_ms: float
    whole_ms: Callable[[nn.Module], float]
    layers_ms: Callable[[Sequence[nn.Module], Tensor], Sequence[float]]
    known: dict[Any, list[float]] = field(default_factory=dict)
    dense_ms: float | None = None
    chosen: str | None = None
    contenders: dict[str, float] = field(default_factory=dict)

    def measured_dense_ms(self, model: nn.Module) -> float:
        """Return the int8 milliseconds of the model with all its weights, measured once."""
        if self.dense_ms is None:
            self.dense_ms = self.whole_ms(model)
        return self.dense_ms


def layer_times(
    graph_module: fx.GraphModule,
    layers: Sequence[PrunableLayer],
    inputs: Sequence[Any],
    levels: Sequence[Level],
    latency: Latency,
) -> dict[str, list[float]]:
    """Return the milliseconds of each layer that is pruned at each level, over all its calls.

    inputs: the graph's, of the example. Layers of equal shape and kind are measured once.
    """
    shapes = _Shapes(graph_module, {c.source for layer in layers for c in layer.calls})
    shapes.run(*inputs)
    times = {}
    for layer in layers:
        if layer.dense:
            continue
        weight = attribute(graph_module, layer.weight_target)
        total = [0.0] * len(levels)
        for call in layer.calls:
            shape = shapes.found[call.source]
            key = (call.geometry, tuple(weight.shape), shape, tuple(levels))
            if key not in latency.known:
                latency.known[key] = _measured(call.geometry, weight, shape, levels, latency)
            total = [a + b for a, b in zip(total, latency.known[key], strict=True)]
        times[layer.name] = total
    return times


def _measured(
    geometry: Geometry,
    weight: Tensor,
    shape: tuple[int, ...],
    levels: Sequence[Level],
    latency: Latency,
) -> list[float]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator)
    if geometry.kind == "conv" and weight.dim() == 3:
        x = x.unsqueeze(-2)
    modules = []
    for level in levels:
        matrices = geometry.matrices(weight.float())
        if level is not None:
            matrices = [m * largest_kept(m.square(), level) for m in matrices]
        modules.append(layer_module(geometry, geometry.weight(matrices, weight.float())))
    return [float(ms) for ms in latency.layers_ms(modules, x)]


def layer_module(geometry: Geometry, weight: Tensor) -> nn.Module:
    """Return a linear layer or a convolution over two axes with this weight and no bias.

    A convolution over one axis becomes one over images of one row. Padding that differs between
    sides is the larger on both.
    """
    if geometry.kind != "conv":
        matrix = weight.t() if geometry.kind == "transposed" else weight
        n, k = matrix.shape
        module: nn.Module = nn.Linear(k, n, bias=False)
    else:
        matrix = weight.unsqueeze(-2) if weight.dim() == 3 else weight
        n, c, kh, kw = matrix.shape
        module = nn.Conv2d(
            c * geometry.groups,
            n,
            (kh, kw),
            geometry.stride,
            tuple(max(sides) for sides in geometry.padding),  # type: ignore[arg-type]
            geometry.dilation,
            geometry.groups,
            bias=False,
        )
    with torch.no_grad():
        module.weight.copy_(matrix)  # type: ignore[operator]
    return module.eval()


class _Shapes(fx.Interpreter):
    """Runs a graph once; `found` has the shapes of the wanted nodes' values."""

    def __init__(self, graph_module: fx.GraphModule, wanted: set[fx.Node]) -> None:
        super().__init__(graph_module)
        self.found: dict[fx.Node, tuple[int, ...]] = {}
        self._wanted = wanted

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n in self._wanted and isinstance(value, Tensor):
            self.found[n] = tuple(value.shape)
        return value
