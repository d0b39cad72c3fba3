"""Pruning by the captured graph: layers to given levels, or to those an allocation chooses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from fastinfer.compress.prune.layer_errors import Level
from fastinfer.compress.prune.layers import PrunableLayer
from fastinfer.compress.prune.nonuniform import Choice, Goal, choose_levels
from fastinfer.compress.prune.report import LayerPruning, PruningReport
from fastinfer.compress.prune.resident import Peak
from fastinfer.compress.prune.solve import Grams, Solution, solve
from fastinfer.compress.prune.walk import Tell, Walk, changed_tensors
from fastinfer.graph.match import TENSORS, attribute
from fastinfer.program import Program
from fastinfer.types.call import Call
from fastinfer.types.sparsity import NM, Pattern


@dataclass(frozen=True)
class GraphPruning:
    """A model that is pruned by its captured graph; layers: all that the graph has."""

    model: nn.Module
    program: Program
    layers: list[PrunableLayer]
    method: str
    report: PruningReport
    peak: Peak
    tell: Tell

    def to_levels(self, batches: Sequence[Sequence[Any]], levels: Mapping[str, Level]) -> None:
        """Prune the model in place, its layers to these levels by name; no level: dense."""
        graph_module = self.program.graph_module
        changed, rows = self._solved(batches, levels, self.report)
        for layer in self.layers:
            target = layer.weight_target
            size = attribute(graph_module, target).numel() if target else 0
            dense = LayerPruning(layer.name, "", size, 0, reason=layer.dense)
            self.report.layers.append(rows.get(layer.name, dense))
        for target, tensor in changed.items():
            # Memory is the graph's too, so this comes last.
            _tensor(self.model, target.removeprefix(f"{TENSORS}.")).copy_(tensor)

    def to_goal(self, batches: list[tuple[Any, ...]], example: Call, goal: Goal) -> None:
        """Prune each layer in place to a level of its own."""
        if all(layer.dense for layer in self.layers):
            self.to_levels([], {})
            return

        def pruned(levels: Mapping[str, Level], fit: Sequence[Sequence[Any]]) -> dict[str, Tensor]:
            unused = PruningReport(goal.pattern, 0.0, self.method)
            return self._solved(self._read(fit), levels, unused)[0]

        assert self.program.call is not None
        flat = self.program.call.flatten(*example)
        assert flat is not None
        choice = choose_levels(
            self.model, self.program.graph_module, self.layers, batches, flat, goal, self.method,
            pruned, self.peak,
        )  # fmt: skip
        self.report.allocation = choice.report
        self.report.sparsity = choice.report.sparsity
        for note in choice.notes:
            self.report.note(note)
        self.to_levels(self._read(batches), choice.levels)
        self.report.layers[:] = [_with_choice(row, choice) for row in self.report.layers]

    def _read(self, batches: Sequence[Sequence[Any]]) -> Sequence[Sequence[Any]]:
        """Return the batches that the method reads: magnitude none."""
        return [] if self.method == "magnitude" else batches

    def _solved(
        self,
        batches: Sequence[Sequence[Any]],
        levels: Mapping[str, Level],
        report: PruningReport,
    ) -> tuple[dict[str, Tensor], dict[str, LayerPruning]]:
        """Return the tensors that pruning changes, by get_attr target, and the report's rows."""
        graph_module = self.program.graph_module
        rows: dict[str, LayerPruning] = {}
        total = sum(not layer.dense for layer in self.layers)

        def solve_layer(
            layer: PrunableLayer, grams: list[Grams] | None, is_centred: bool
        ) -> list[Solution]:
            self.tell(f"pruning {layer.name}", len(rows), total)
            weight = attribute(graph_module, layer.weight_target)
            matrices = layer.calls[0].geometry.matrices(weight)
            pattern = levels.get(layer.name)
            if pattern is None:
                return [Solution(matrix, is_dense=True) for matrix in matrices]
            solutions = [
                solve(
                    matrix,
                    None if grams is None else grams[g],
                    pattern,
                    self.method,
                    is_centred=is_centred,
                )
                for g, matrix in enumerate(matrices)
            ]
            rows[layer.name] = layer_row(layer.name, weight, solutions, pattern, report.pattern)
            return solutions

        if batches:
            return Walk(graph_module, self.layers, solve_layer, self.peak).run(batches), rows
        changed: dict[str, Tensor] = {}
        for layer in self.layers:
            if not layer.dense:
                solutions = solve_layer(layer, None, False)
                changed.update(changed_tensors(graph_module, layer, solutions))
        return changed, rows


def _with_choice(row: LayerPruning, choice: Choice) -> LayerPruning:
    """Return a report's row with what the allocation knew of its layer."""
    if row.name not in choice.levels:
        return row
    return replace(
        row,
        predicted_error=choice.errors[row.name],
        predicted_ms=None if choice.times is None else choice.times[row.name],
        reason=row.reason or ("" if choice.levels[row.name] else "dense by the allocation"),
    )


def layer_row(
    name: str, weight: Tensor, solutions: Sequence[Solution], pattern: Pattern, called: str
) -> LayerPruning:
    """Return the report's row of a layer from what its groups became."""
    zeros = sum(int((s.matrix == 0).sum()) for s in solutions)
    reasons = [s.reason for s in solutions if s.reason]
    k = solutions[0].matrix.shape[1]
    if isinstance(pattern, NM) and k % pattern.m:
        reasons.append(f"the last group has {k % pattern.m} of {pattern.m} inputs")
    errors = [s.error for s in solutions if s.error is not None]
    dampings = [s.damping for s in solutions if s.damping is not None]
    return LayerPruning(
        name,
        "" if all(s.is_dense for s in solutions) else called,
        weight.numel(),
        zeros,
        sum(errors) / len(errors) if errors else None,
        max(dampings) if dampings else None,
        "; ".join(dict.fromkeys(reasons)),
    )


def _tensor(model: nn.Module, name: str) -> Tensor:
    path, _, leaf = name.rpartition(".")
    found = getattr(model.get_submodule(path), leaf)
    assert isinstance(found, Tensor)
    return found
