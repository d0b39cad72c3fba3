"""Which operations between layers run in int8: those with int8 on both sides."""

from __future__ import annotations

from collections.abc import Mapping

from torch import fx

from fastinfer.compress.quantize.calibrate import Calibrator
from fastinfer.graph.between import Between
from fastinfer.graph.transparent import UINT8_OPS, tensor_inputs


def int8_betweens(
    calibrator: Calibrator, static: frozenset[fx.Node], held: frozenset[str] = frozenset()
) -> dict[fx.Node, Between]:
    """Return the operations between layers that run in int8, in graph order.

    One does when an input comes from a static layer or another such operation, and one of these
    reads its result, in both directions maybe through operations that only move elements. An
    operation at the edge would only move the border, not save one.

    static: the layers in static int8; held: names of operations that stay float.
    """
    candidates = {
        node: between
        for node, between in calibrator.betweens.items()
        if node.name not in held and _is_finite(node, between, calibrator)
    }
    flow = _Flow(calibrator.graph_module.graph, static, calibrator.betweens)
    chosen = set(candidates)
    while True:
        fed, read = flow.fed(chosen), flow.read(chosen)
        kept = {node for node in chosen if node in read and fed & set(candidates[node].inputs)}
        if kept == chosen:
            return {node: between for node, between in candidates.items() if node in chosen}
        chosen = kept


def _is_finite(node: fx.Node, between: Between, calibrator: Calibrator) -> bool:
    """Return True when calibration saw every tensor of an operation, and only numbers."""
    nodes = [node, *between.inputs, *([between.inner] if between.inner is not None else [])]
    seen = [calibrator.statistics.get(n.name) for n in nodes]
    return all(statistics is not None and statistics.is_finite for statistics in seen)


class _Flow:
    """Where int8 tensors come from and go to."""

    def __init__(
        self,
        graph: fx.Graph,
        static: frozenset[fx.Node],
        betweens: Mapping[fx.Node, Between],
    ) -> None:
        self._nodes = list(graph.nodes)
        self._static = static
        self._betweens = betweens

    def _moves(self, node: fx.Node) -> bool:
        is_move = node.op == "call_function" and node.target in UINT8_OPS
        return is_move and node not in self._betweens

    def fed(self, chosen: set[fx.Node]) -> set[fx.Node]:
        """Return the tensors that int8 makes."""
        found: set[fx.Node] = set()
        for node in self._nodes:
            makes = node in chosen or node in self._static
            if makes or (self._moves(node) and found & set(tensor_inputs(node))):
                found.add(node)
        return found

    def read(self, chosen: set[fx.Node]) -> set[fx.Node]:
        """Return the tensors that int8 reads."""
        found: set[fx.Node] = set()
        for node in reversed(self._nodes):
            sources: list[fx.Node] = []
            if node in chosen:
                sources = list(self._betweens[node].inputs)
            elif node in self._static:
                # A layer that answers in float adds its residual in float.
                sources = [node.args[0], *(node.args[1:2] if node in found else ())]
            elif node in found and self._moves(node):
                sources = list(tensor_inputs(node))
            found.update(source for source in sources if isinstance(source, fx.Node))
        return found
