"""allocate: exact against trying all, within budget, monotone."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastinfer.compress.prune.allocate import GRID, UnreachableError, allocate

LAYER = st.lists(st.tuples(st.integers(0, 100), st.integers(0, 30)), min_size=1, max_size=4)
LAYERS = st.lists(LAYER, min_size=1, max_size=5)


def split(layers):
    errors = [[float(e) for e, _ in options] for options in layers]
    return errors, [[c for _, c in options] for options in layers]


def tried(errors, costs, budget):
    """Return the least error of all choices within the budget, None where there is none."""
    sums = [
        sum(e[i] for e, i in zip(errors, choice, strict=True))
        for choice in itertools.product(*(range(len(e)) for e in errors))
        if sum(c[i] for c, i in zip(costs, choice, strict=True)) <= budget
    ]
    return min(sums, default=None)


@settings(max_examples=150, deadline=None)
@given(LAYERS, st.integers(0, 120))
def test_as_good_as_the_best_of_all(layers, budget):
    errors, costs = split(layers)
    best = tried(errors, costs, budget)
    if best is None:
        with pytest.raises(UnreachableError) as caught:
            allocate(errors, costs, budget)
        assert caught.value.least == sum(map(min, costs)) > budget
        return
    found = allocate(errors, costs, budget)
    assert found.error == best and found.cost <= budget
    assert found.error == sum(e[i] for e, i in zip(errors, found.options, strict=True))
    assert found.cost == sum(c[i] for c, i in zip(costs, found.options, strict=True))


@settings(max_examples=60, deadline=None)
@given(LAYERS, st.integers(0, 100), st.integers(0, 40), st.sampled_from([1.0, 0.37]))
def test_more_room_is_never_worse(layers, budget, more, scale):
    errors, costs = split(layers)
    costs = [[scale * c for c in options] for options in costs]
    try:
        tight = allocate(errors, costs, scale * budget)
    except UnreachableError:
        return
    assert allocate(errors, costs, scale * (budget + more)).error <= tight.error


@settings(max_examples=60, deadline=None)
@given(LAYERS, st.integers(0, 120))
def test_costs_that_are_no_integers_stay_within(layers, budget):
    errors, costs = split(layers)
    costs = [[c * 0.37 + 0.001 * i for i, c in enumerate(options)] for options in costs]
    try:
        found = allocate(errors, costs, 0.37 * budget)
    except UnreachableError:
        return
    assert found.cost <= 0.37 * budget * (1 + 1e-9)
    # Rounded up by less than a step each: as good as the best with so much less room.
    spare = len(costs) * sum(map(max, costs)) / GRID
    best = tried(errors, costs, 0.37 * budget - spare)
    assert best is None or found.error <= best


def test_of_equal_errors_the_cheaper():
    assert allocate([[1.0, 1.0, 2.0]], [[5, 3, 1]], 10).options == (1,)


@pytest.mark.parametrize(
    "errors, costs, text",
    [
        ([[1.0]], [], "expected 1 layers, got 0"),
        ([[]], [[]], "layer 0: expected as many errors as costs"),
        ([[1.0], [1.0, 2.0]], [[1], [1]], "layer 1: .* got 2 and 1"),
        ([[float("nan")]], [[1]], "layer 0: expected finite errors"),
        ([[1.0]], [[-1]], "layer 0: expected costs >= 0"),
    ],
)
def test_refused(errors, costs, text):
    with pytest.raises(ValueError, match=text):
        allocate(errors, costs, 10)
