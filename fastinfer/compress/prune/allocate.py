"""One option for each layer: the least sum of errors whose costs fit a budget, exactly."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: Steps of all costs together where they have no large common divisor. A cost is rounded up to
#: whole steps, so that an allocation never exceeds its budget; a layer wastes less than a step.
GRID = 20_000
#: With a common divisor so many steps are taken before costs are rounded.
MOST_STEPS = 200_000


@dataclass(frozen=True)
class Allocation:
    """The index of each layer's option, and what they add up to."""

    options: tuple[int, ...]
    error: float
    cost: float


class UnreachableError(ValueError):
    """No choice fits the budget; `least` is the least cost there is."""

    def __init__(self, least: float, budget: float) -> None:
        super().__init__(f"allocate: budget: expected at least {least:g}, got {budget:g}")
        self.least = least


def allocate(
    errors: Sequence[Sequence[float]], costs: Sequence[Sequence[float]], budget: float
) -> Allocation:
    """Return the options with the least sum of errors among those whose costs add up to budget.

    errors, costs: for each layer one value for each of its options, costs not negative. Of equal
    errors the cheaper option is taken. Integer costs with a common divisor are exact.

    Raises:
        ValueError: lengths differ, a layer has no option, an error is NaN, or a cost is negative.
        UnreachableError: the cheapest options are beyond the budget.

    Source: Bellman, "Dynamic programming" (1957); the multiple-choice knapsack problem.
    """
    _check(errors, costs)
    least = math.fsum(min(options) for options in costs)
    if least > budget * (1 + 1e-12):
        raise UnreachableError(least, budget)
    steps, room = _steps(costs, budget)
    # best[b]: the least error of the layers so far at a cost of at most b steps.
    best = np.zeros(room + 1)
    taken: list[np.ndarray] = []
    for layer_errors, layer_steps in zip(errors, steps, strict=True):
        order = sorted(range(len(layer_steps)), key=lambda i: (layer_steps[i], layer_errors[i]))
        following = np.full(room + 1, np.inf)
        option = np.full(room + 1, -1, dtype=np.int32)
        for i in order:
            used = layer_steps[i]
            if used > room:
                continue
            candidate = best[: room + 1 - used] + layer_errors[i]
            better = candidate < following[used:]
            following[used:][better] = candidate[better]
            option[used:][better] = i
        best = following
        taken.append(option)
    if not np.isfinite(best[room]):
        # Only rounding keeps the cheapest options out.
        return _summed([options.index(min(options)) for options in map(list, costs)], errors, costs)
    chosen, left = [], room
    for option, layer_steps in zip(reversed(taken), reversed(steps), strict=True):
        index = int(option[left])
        chosen.append(index)
        left -= layer_steps[index]
    return _summed(chosen[::-1], errors, costs)


def _check(errors: Sequence[Sequence[float]], costs: Sequence[Sequence[float]]) -> None:
    if len(errors) != len(costs):
        raise ValueError(f"allocate: costs: expected {len(errors)} layers, got {len(costs)}")
    for index, (of_errors, of_costs) in enumerate(zip(errors, costs, strict=True)):
        if not of_errors or len(of_errors) != len(of_costs):
            raise ValueError(
                f"allocate: layer {index}: expected as many errors as costs, at least one, got "
                f"{len(of_errors)} and {len(of_costs)}"
            )
        if not all(math.isfinite(e) for e in of_errors):
            raise ValueError(f"allocate: layer {index}: expected finite errors, got {of_errors}")
        if not all(c >= 0 and math.isfinite(c) for c in of_costs):
            raise ValueError(f"allocate: layer {index}: expected costs >= 0, got {of_costs}")


def _steps(costs: Sequence[Sequence[float]], budget: float) -> tuple[list[list[int]], int]:
    """Return costs and budget in whole steps."""
    values = [cost for options in costs for cost in options]
    if all(float(cost).is_integer() for cost in values):
        unit = math.gcd(*map(int, values)) or 1
        if budget / unit <= MOST_STEPS:
            exact = [[int(cost) // unit for cost in options] for options in costs]
            # More room than all layers' dearest options need would only cost time.
            most = sum(max(options) for options in exact)
            return exact, min(most, math.floor(budget / unit + 1e-9))
    # Of the dearest options, not of the budget: then a larger budget never gives a larger error.
    step = math.fsum(max(options) for options in costs) / GRID or 1.0
    rounded = [[math.ceil(cost / step - 1e-9) for cost in options] for options in costs]
    most = sum(max(options) for options in rounded)
    return rounded, max(0, min(most, math.floor(budget / step + 1e-9)))


def _summed(
    chosen: Sequence[int], errors: Sequence[Sequence[float]], costs: Sequence[Sequence[float]]
) -> Allocation:
    return Allocation(
        tuple(chosen),
        math.fsum(e[i] for e, i in zip(errors, chosen, strict=True)),
        math.fsum(c[i] for c, i in zip(costs, chosen, strict=True)),
    )
