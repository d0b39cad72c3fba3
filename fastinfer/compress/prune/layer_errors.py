"""What each layer's zeros cost, at each level: its own error, and what the output makes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from fastinfer.compress.gram import Moments
from fastinfer.compress.prune.layers import PrunableLayer
from fastinfer.compress.prune.masks import largest_kept
from fastinfer.compress.prune.obs import NotPositiveError, damped, refit
from fastinfer.compress.prune.resident import Peak
from fastinfer.compress.prune.solve import DEFAULT_DAMPING, Grams, Solution, solve
from fastinfer.compress.prune.walk import Walk, changed_tensors
from fastinfer.graph.match import attribute
from fastinfer.types.sparsity import Pattern

#: Conjugate gradient steps of an estimate: enough to tell levels apart, a quarter of a refit's.
STEPS = 5
#: Samples on which a layer's share in the output's error is measured, one run for each layer.
SAMPLES = 24

#: A layer's level: the pattern of its zeros, None where it stays dense.
Level = Pattern | None


def level_solutions(
    weight: Tensor, grams: Grams, levels: Sequence[Level], method: str, *, is_centred: bool = True
) -> list[Solution]:
    """Return what a weight [N, K] is about to become at each level, with its error.

    The methods that fit weights are estimated: the mask by w² / [H⁻¹]_jj, which one factor serves
    for all levels, and a few steps of the refit. The others are what they are.

    Source: Hassibi and Stork, "Optimal brain surgeon" (1993), for the mask.
    """
    weight = weight.float()
    total = grams.fit.moments(grams.held, is_centred=is_centred)
    dense = Solution(weight, error=0.0, is_dense=True)
    if not total.is_finite or not bool(weight.any()):
        return [dense for _ in levels]  # `solve` leaves it dense
    if method in ("magnitude", "obd"):
        return [
            dense if level is None else solve(weight, grams, level, method, is_centred=is_centred)
            for level in levels
        ]
    try:
        cross = total.cross if method == "obs" else weight.double() @ total.hessian
        problem = damped(weight, total.hessian, cross, DEFAULT_DAMPING)
    except (NotPositiveError, torch.linalg.LinAlgError):
        return [dense for _ in levels]
    saliency = weight.square() / torch.cholesky_inverse(problem.factor).diagonal()
    found = []
    for level in levels:
        if level is None:
            found.append(dense)
            continue
        mask = largest_kept(saliency, level)
        found.append(_fitted(refit(problem, mask, weight * mask, STEPS), total))
    return found


def _fitted(matrix: Tensor, total: Moments) -> Solution:
    bias = total.y_mean - matrix.double() @ total.x_mean
    return Solution(matrix, bias, total.relative_error(matrix))


def layer_errors(
    graph_module: fx.GraphModule,
    layers: Sequence[PrunableLayer],
    batches: Sequence[Sequence[Any]],
    levels: Sequence[Level],
    middle: int,
    method: str,
    peak: Peak,
) -> dict[str, list[float]]:
    """Return the output's relative error at each level of each layer that is pruned alone.

    middle: the level (an index) at which the whole network is run with that layer pruned. The
    layer's own errors on its inputs' covariance say how that goes on to the other levels.
    """
    own: dict[str, list[float]] = {}
    pruned: dict[str, dict[str, Tensor]] = {}

    def observe(layer: PrunableLayer, grams: list[Grams], is_centred: bool) -> list[Solution]:
        weight = attribute(graph_module, layer.weight_target)
        groups = [
            level_solutions(matrix, grams[g], levels, method, is_centred=is_centred)
            for g, matrix in enumerate(layer.calls[0].geometry.matrices(weight))
        ]
        own[layer.name] = [
            sum(solutions[i].error or 0.0 for solutions in groups) / len(groups)
            for i in range(len(levels))
        ]
        at_middle = [solutions[middle] for solutions in groups]
        pruned[layer.name] = changed_tensors(graph_module, layer, at_middle)
        return [Solution(s.matrix, is_dense=True) for s in at_middle]

    Walk(graph_module, layers, observe, peak).run(batches)
    some = few_batches(batches)
    wanted = [graph_outputs(graph_module, batch, {}) for batch in some]
    errors = {}
    for name, of_levels in own.items():
        alone = output_error(graph_module, pruned[name], some, wanted)
        weight_of_layer = alone / of_levels[middle] if of_levels[middle] > 0 else 1.0
        errors[name] = [weight_of_layer * error for error in of_levels]
        peak.look()
    return errors


def few_batches(batches: Sequence[Sequence[Any]]) -> list[Sequence[Any]]:
    """Return batches of about SAMPLES samples, from all over."""
    first = next((v for v in batches[0] if isinstance(v, Tensor) and v.dim()), None)
    count = max(1, round(SAMPLES / max(1, 1 if first is None else first.shape[0])))
    return list(batches)[:: max(1, len(batches) // count)][:count]


def output_error(
    graph_module: fx.GraphModule,
    changed: Mapping[str, Tensor],
    batches: Sequence[Sequence[Any]],
    wanted: Sequence[Sequence[Tensor]],
) -> float:
    """Return |wanted - found|² over |wanted|² of the graph's outputs, the mean over outputs.

    changed: tensors in place of the graph's, by get_attr target. wanted: as `graph_outputs` gave.
    """
    missed = [0.0] * len(wanted[0])
    power = [0.0] * len(wanted[0])
    for batch, answers in zip(batches, wanted, strict=True):
        found = graph_outputs(graph_module, batch, changed)
        for i, (answer, value) in enumerate(zip(answers, found, strict=True)):
            missed[i] += float((answer - value).double().square().sum())
            power[i] += float(answer.double().square().sum())
    shares = [m / p for m, p in zip(missed, power, strict=True) if p > 0]
    return sum(shares) / len(shares) if shares else 0.0


def graph_outputs(
    graph_module: fx.GraphModule, batch: Sequence[Any], changed: Mapping[str, Tensor]
) -> list[Tensor]:
    """Return the graph's floating-point outputs with some of its tensors replaced."""
    result = _Changed(graph_module, changed).run(*batch)
    leaves = pytree.tree_leaves(result)
    return [v.detach() for v in leaves if isinstance(v, Tensor) and v.is_floating_point()]


class _Changed(fx.Interpreter):
    """Interprets a graph with some tensors in place of its own."""

    def __init__(self, graph_module: fx.GraphModule, changed: Mapping[str, Tensor]) -> None:
        super().__init__(graph_module)
        self._changed = changed

    def get_attr(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the replacement, or the graph's own."""
        if str(target) in self._changed:
            return self._changed[str(target)]
        return super().get_attr(target, args, kwargs)
