"""A level for each layer, for a mean sparsity or a latency, checked on the whole network."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, fx, nn

from fastinfer.compress.prune.allocate import Allocation, UnreachableError, allocate
from fastinfer.compress.prune.layer_errors import (
    Level,
    graph_outputs,
    layer_errors,
    output_error,
)
from fastinfer.compress.prune.layer_times import Latency, layer_times
from fastinfer.compress.prune.layers import PrunableLayer
from fastinfer.compress.prune.report import AllocationReport
from fastinfer.compress.prune.resident import Peak
from fastinfer.compress.prune.walk import HELD_EVERY
from fastinfer.graph.match import attribute
from fastinfer.types.sparsity import NAMED, NM, Unstructured

ALLOCATIONS = ("uniform", "error")
#: n kept of 64, and the densities of unstructured masks as 64ths.
KEPT = (64, 48, 40, 32, 24, 16, 8, 4)
#: What GPU kernels of a shared pattern run on: of 128 inputs 64 or 32.
KEPT_SHARED = (64, 32, 16)
#: How many levels a layer may be away from the uniform one, by the name of that contender.
UNIFORM, ONE_OFF = "uniform", "error, one level off"
REACHES = {ONE_OFF: 1, "error": len(KEPT)}

#: patterns of layers by name, batches -> the tensors that pruning so changes.
Pruned = Callable[[Mapping[str, Level], Sequence[Sequence[Any]]], dict[str, Tensor]]


@dataclass(frozen=True)
class Goal:
    """What an allocation is for: a mean sparsity of a pattern by name, or a latency."""

    pattern: str
    sparsity: float | None
    latency: Latency | None = None

    def levels(self) -> tuple[Level, ...]:
        """Return the levels a layer may have, the densest first: None, dense, before all."""
        kept = KEPT_SHARED if self._share > 2 else KEPT
        return tuple(self._level(n) for n in kept)

    @property
    def uniform(self) -> Level:
        """The level that all layers have in the uniform contender: as sparse, or just above."""
        assert self.sparsity is not None
        if self.pattern == "unstructured":
            return self._level(64 * (1 - self.sparsity))
        return self._level(max(1, math.floor(64 * (1 - self.sparsity) + 1e-6)))

    @property
    def _share(self) -> int:
        return NAMED[self.pattern][1] if self.pattern in NAMED else 1

    def _level(self, kept: float) -> Level:
        if kept >= 64:
            return None
        if self.pattern == "unstructured":
            return Unstructured(kept / 64)
        return NM(int(kept), 64, self._share)


@dataclass(frozen=True)
class Choice:
    """Each layer's level, by name, with the error and time it was chosen by."""

    levels: dict[str, Level]
    errors: dict[str, float]
    times: dict[str, float] | None
    report: AllocationReport
    notes: list[str] = field(default_factory=list)


def density(level: Level) -> float:
    """Return the share of weights that a level keeps."""
    return 1.0 if level is None else level.density


def choose_levels(
    model: nn.Module,
    graph_module: fx.GraphModule,
    layers: Sequence[PrunableLayer],
    batches: Sequence[Sequence[Any]],
    example: Sequence[Any],
    goal: Goal,
    method: str,
    pruned: Pruned,
    peak: Peak,
) -> Choice:
    """Return a level for each layer that is to be pruned.

    example: the graph's inputs, for times. pruned: prunes with given levels, to check the whole.

    Raises:
        ValueError: the target cannot be reached; the text says what can.
    """
    kept = [layer for layer in layers if not layer.dense]
    levels = goal.levels()
    if goal.latency is None:
        return _for_sparsity(graph_module, kept, layers, batches, goal, method, pruned, peak)
    times, budget = _latency_budget(model, graph_module, layers, example, levels, goal.latency)
    middle = min(range(len(levels)), key=lambda i: abs(density(levels[i]) - 0.5))
    errors = layer_errors(graph_module, layers, batches, levels, middle, method, peak)
    names = [layer.name for layer in kept if layer.name in errors]
    # The densest that is fast enough with all layers alike, if there is one.
    uniform = next(
        (i for i in range(len(levels)) if math.fsum(times[n][i] for n in names) <= budget), None
    )
    contenders = _contenders(names, errors, times, budget, uniform)
    chosen, whole = goal.latency.chosen, goal.latency.contenders
    notes: list[str] = []
    if chosen not in contenders:
        chosen, whole, notes = _decided(
            graph_module, names, levels, contenders, batches, pruned, peak
        )
        goal.latency.chosen, goal.latency.contenders = chosen, whole
    found = contenders[chosen]
    dense_ms = goal.latency.measured_dense_ms(model)
    saved = math.fsum(times[n][0] for n in names) - found.cost
    report = AllocationReport(
        _mean_sparsity(graph_module, kept, names, levels, found),
        found.error,
        chosen,
        whole,
        target_ms=goal.latency.target_ms,
        dense_ms=dense_ms,
        predicted_ms=dense_ms - saved,
    )
    return _choice(names, levels, found, errors, times, report, notes)


def _latency_budget(
    model: nn.Module,
    graph_module: fx.GraphModule,
    layers: Sequence[PrunableLayer],
    example: Sequence[Any],
    levels: Sequence[Level],
    latency: Latency,
) -> tuple[dict[str, list[float]], float]:
    """Return the layers' times, and what those that can be pruned may take together."""
    dense_ms = latency.measured_dense_ms(model)
    times = layer_times(graph_module, layers, example, levels, latency)
    dense = math.fsum(of_levels[0] for of_levels in times.values())
    least = math.fsum(min(of_levels) for of_levels in times.values())
    budget = latency.target_ms - dense_ms + dense
    if budget < least:
        nearest = math.ceil(1e3 * (dense_ms - dense + least)) / 1e3
        raise ValueError(
            f"prune: target_ms: {latency.target_ms:g} cannot be reached: dense int8 takes "
            f"{dense_ms:.3f} ms, and with each layer at its fastest the estimate is {nearest:g}; "
            f"ask for {nearest:g} or more"
        )
    return times, budget


def _for_sparsity(
    graph_module: fx.GraphModule,
    kept: Sequence[PrunableLayer],
    layers: Sequence[PrunableLayer],
    batches: Sequence[Sequence[Any]],
    goal: Goal,
    method: str,
    pruned: Pruned,
    peak: Peak,
) -> Choice:
    assert goal.sparsity is not None
    uniform, levels = goal.uniform, list(goal.levels())
    if uniform not in levels:
        levels = sorted([*levels, uniform], key=density, reverse=True)
    middle = levels.index(uniform)
    names = [layer.name for layer in kept]
    # Without zeros there is nothing to weigh layers by.
    probed = middle if middle else min(3, len(levels) - 1)
    errors = layer_errors(graph_module, layers, batches, levels, probed, method, peak)
    sizes = {c.name: attribute(graph_module, c.weight_target).numel() for c in kept}
    # In 64ths of a weight, which are whole numbers of all levels but an odd uniform one.
    costs = {
        n: [math.floor(64 * sizes[n] * density(level) + 1e-6) for level in levels] for n in names
    }
    budget = 64 * sum(sizes.values()) * (1 - goal.sparsity) + 1e-6
    contenders = _contenders(names, errors, costs, budget, middle)
    chosen, whole, notes = _decided(graph_module, names, levels, contenders, batches, pruned, peak)
    best = contenders[chosen]
    mean = _mean_sparsity(graph_module, kept, names, levels, best)
    report = AllocationReport(mean, best.error, chosen, whole)
    return _choice(names, levels, best, errors, None, report, notes)


def _contenders(
    names: Sequence[str],
    errors: Mapping[str, Sequence[float]],
    costs: Mapping[str, Sequence[float]],
    budget: float,
    uniform: int | None,
) -> dict[str, Allocation]:
    """Return allocations within the budget by name, no two alike.

    uniform: the level of that contender, None where no level of all layers fits.
    """
    found: dict[str, Allocation] = {}
    reaches = dict(REACHES)
    if uniform is None:
        del reaches[ONE_OFF]
    else:
        found[UNIFORM] = _summed_at(uniform, names, errors, costs)
    most = max((len(costs[n]) for n in names), default=0)
    for contender, reach in reaches.items():
        middle = uniform or 0
        low, high = max(0, middle - reach), min(most, middle + reach + 1)
        try:
            best = allocate(
                [errors[n][low:high] for n in names], [costs[n][low:high] for n in names], budget
            )
        except UnreachableError:
            continue  # the uniform level is there to fall back on
        moved = Allocation(tuple(i + low for i in best.options), best.error, best.cost)
        if moved.options not in [c.options for c in found.values()]:
            found[contender] = moved
    return found


def _decided(
    graph_module: fx.GraphModule,
    names: Sequence[str],
    levels: Sequence[Level],
    contenders: Mapping[str, Allocation],
    batches: Sequence[Sequence[Any]],
    pruned: Pruned,
    peak: Peak,
) -> tuple[str, dict[str, float], list[str]]:
    """Return the contender with which the whole network's output errs least.

    Also that error of each, where there are several, and notes. Layers make up for one another, so
    sums of their errors mislead: what is measured decides.
    """
    if len(contenders) == 1:
        return next(iter(contenders)), {}, []
    fit, held = list(batches), list(batches)
    notes: list[str] = []
    if len(batches) >= HELD_EVERY:
        held = fit[HELD_EVERY - 1 :: HELD_EVERY]
        fit = [b for i, b in enumerate(batches) if i % HELD_EVERY != HELD_EVERY - 1]
    else:
        notes.append(
            f"allocations were compared on the data that pruned, as there are fewer than "
            f"{HELD_EVERY} batches"
        )
    wanted = [graph_outputs(graph_module, batch, {}) for batch in held]
    whole = {}
    for contender, found in contenders.items():
        chosen = {n: levels[i] for n, i in zip(names, found.options, strict=True)}
        whole[contender] = output_error(graph_module, pruned(chosen, fit), held, wanted)
        peak.look()
    return min(whole, key=whole.__getitem__), whole, notes


def _summed_at(
    index: int,
    names: Sequence[str],
    errors: Mapping[str, Sequence[float]],
    costs: Mapping[str, Sequence[float]],
) -> Allocation:
    return Allocation(
        (index,) * len(names),
        math.fsum(errors[n][index] for n in names),
        math.fsum(costs[n][index] for n in names),
    )


def _mean_sparsity(
    graph_module: fx.GraphModule,
    layers: Sequence[PrunableLayer],
    names: Sequence[str],
    levels: Sequence[Level],
    found: Allocation,
) -> float:
    at = dict(zip(names, found.options, strict=True))
    sizes = {c.name: attribute(graph_module, c.weight_target).numel() for c in layers}
    zeros = math.fsum(sizes[n] * (1 - density(levels[i])) for n, i in at.items())
    return zeros / max(1, sum(sizes.values()))


def _choice(
    names: Sequence[str],
    levels: Sequence[Level],
    found: Allocation,
    errors: Mapping[str, Sequence[float]],
    times: Mapping[str, Sequence[float]] | None,
    report: AllocationReport,
    notes: Sequence[str] = (),
) -> Choice:
    at = dict(zip(names, found.options, strict=True))
    return Choice(
        {n: levels[i] for n, i in at.items()},
        {n: errors[n][i] for n, i in at.items()},
        None if times is None else {n: times[n][i] for n, i in at.items()},
        report,
        list(notes),
    )


def check_goal(
    pattern: object, sparsity: object, method: str, latency: Latency | None, has_example: bool
) -> Goal:
    """Return the goal of a call whose layers get sparsities of their own.

    Raises:
        TypeError, ValueError: naming the argument, what was wanted and the fix.
    """
    called = "allocation 'error'" if latency is None else "target_ms"
    if pattern == "channel":
        raise ValueError(
            f"prune: pattern 'channel' chooses channels over all layers itself; leave out {called} "
            "(see prune_channels)"
        )
    if not isinstance(pattern, str):
        raise TypeError(f"pattern: expected a name, got {type(pattern).__name__}")
    if pattern != "unstructured" and pattern not in NAMED:
        raise ValueError(
            f"prune: pattern: {called} expects one of {['unstructured', *NAMED]}, of which layers "
            f"can have more or fewer zeros, got {pattern!r}"
        )
    if not has_example:
        raise ValueError(
            f"prune: example_inputs: {called} measures errors, with method {method!r} too; pass "
            "inputs to run the model on, and calibration= for more of them; got None"
        )
    if latency is not None:
        if sparsity is not None:
            raise ValueError(
                f"prune: sparsity: expected None with target_ms, which decides it, got {sparsity}"
            )
        return Goal(pattern, None, latency)
    if isinstance(sparsity, bool) or not isinstance(sparsity, (int, float)):
        raise TypeError(
            f"pattern {pattern!r}: sparsity: expected a number, got {type(sparsity).__name__}"
        )
    goal = Goal(pattern, float(sparsity))
    most = 1 - min(map(density, goal.levels()))
    if not 0 <= sparsity <= most:
        raise ValueError(
            f"prune: sparsity: expected 0 <= sparsity <= {most:g} for {pattern!r} with allocation "
            f"'error', got {sparsity:g}"
        )
    return goal
