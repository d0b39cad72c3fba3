"""Which sizes a captured graph holds for, as data: conditions on named sizes."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: A number, the name of a size, or an operator and its operands: ("!=", ("+", "s0", 1), 2).
Expression = int | str | tuple[Any, ...]


def _folded(function: Callable[[int, int], int]) -> Callable[..., int]:
    def fold(first: int, *others: int) -> int:
        for other in others:
            first = function(first, other)
        return first

    return fold


#: Name -> least and most operands, and the function.
OPERATORS: Mapping[str, tuple[int, int, Callable[..., Any]]] = {
    "+": (1, 64, _folded(operator.add)),
    "*": (1, 64, _folded(operator.mul)),
    "//": (2, 2, operator.floordiv),
    "%": (2, 2, operator.mod),
    "max": (2, 64, max),
    "min": (2, 64, min),
    "==": (2, 2, operator.eq),
    "!=": (2, 2, operator.ne),
    "<": (2, 2, operator.lt),
    "<=": (2, 2, operator.le),
    ">": (2, 2, operator.gt),
    ">=": (2, 2, operator.ge),
    "and": (1, 64, lambda *values: all(values)),
    "or": (1, 64, lambda *values: any(values)),
    "not": (1, 1, operator.not_),
}


@dataclass(frozen=True)
class SizeGuard:
    """Answers whether a graph holds for the shapes of its tensor inputs.

    places: (name, input, dimension) of every named size; conditions: all must be true.

    Sizes below 2 are asked as 2: torch.export excludes 0 and 1 from every free size, whether or not
    the model treats them differently, which capture finds out by running both.

    Raises:
        ValueError: a condition has an unknown operator or name, or too many operands.
    """

    places: tuple[tuple[str, int, int], ...] = ()
    conditions: tuple[Expression, ...] = ()

    def __post_init__(self) -> None:
        names = {name for name, _, _ in self.places}
        for part in _parts(self.conditions):
            if isinstance(part, tuple):
                _check_call(part)
            elif isinstance(part, str) and part not in names:
                raise ValueError(f"SizeGuard: expected a size of {sorted(names)}, got {part!r}")

    def __call__(self, shapes: Sequence[Sequence[int]]) -> bool:
        """Return True when every condition holds for these shapes."""
        sizes = {name: max(shapes[index][dim], 2) for name, index, dim in self.places}
        try:
            return all(_value(condition, sizes) for condition in self.conditions)
        except ZeroDivisionError:  # the graph would divide so too
            return False


def _check_call(call: tuple[Any, ...]) -> None:
    known = OPERATORS.get(call[0]) if call and isinstance(call[0], str) else None
    if known is None or not known[0] <= len(call) - 1 <= known[1]:
        raise ValueError(
            f"SizeGuard: expected an operator of {list(OPERATORS)} and its operands, got {call!r}"
        )


def _parts(operands: Sequence[Expression]) -> Iterator[Expression]:
    """Yield every expression among the operands, from outside in."""
    for operand in operands:
        yield operand
        if isinstance(operand, tuple):
            yield from _parts(operand[1:])


def _value(expression: Expression, sizes: Mapping[str, int]) -> int:
    if isinstance(expression, str):
        return sizes[expression]
    if isinstance(expression, int):
        return expression
    value: int = OPERATORS[expression[0]][2](*(_value(part, sizes) for part in expression[1:]))
    return value
