"""Conditions on sizes as data."""

from __future__ import annotations

import pytest

from fastinfer.types.size_guard import OPERATORS, SizeGuard

PLACES = (("s0", 0, 1), ("s1", 1, 0))


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        (("==", "s0", 6), True),
        (("!=", ("+", 1, ("//", ("+", -1, "s0"), 2)), 3), False),
        (("<", ("*", 2, "s1"), "s0"), False),
        (("<=", ("*", 2, "s1", 1), "s0"), True),
        ((">", ("%", "s0", 4), 1), True),
        ((">=", ("max", "s0", "s1"), ("min", "s0", 7)), True),
        (("and", ("==", "s0", 6), ("not", ("==", "s1", 3))), False),
        (("or", ("==", "s0", 5), ("==", "s1", 3)), True),
        (("//", 1, ("+", "s0", -6)), False),
    ],
)
def test_conditions(condition, holds):
    assert SizeGuard(PLACES, (condition,))([[1, 6], [3]]) is holds


def test_small_sizes_are_asked_as_two():
    guard = SizeGuard(PLACES, (("==", "s0", 2),))
    assert guard([[1, 0], [3]]) and guard([[1, 2], [3]]) and not guard([[1, 3], [3]])


@pytest.mark.parametrize(
    "wrong", [("pow", 2, 3), ("==", 1), ("not", 1, 1), (), ("+", ("?", 1), 1), (1, 2), (["+"], 1)]
)
def test_unknown_operators(wrong):
    with pytest.raises(ValueError, match="expected an operator"):
        SizeGuard(PLACES, (("==", wrong, 1),))


def test_unknown_sizes():
    with pytest.raises(ValueError, match="got 's2'"):
        SizeGuard(PLACES, (("==", "s2", 1),))


def test_every_operator_was_tried():
    assert set(OPERATORS) == {
        "+", "*", "//", "%", "max", "min", "==", "!=", "<", "<=", ">", ">=", "and", "or", "not",
    }  # fmt: skip
