"""torch.export's guards on sizes, sympy expressions, as a SizeGuard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from fastinfer.types.call import TensorInput
from fastinfer.types.size_guard import Expression, SizeGuard

#: Class of a sympy expression -> operator of a SizeGuard.
_OPERATORS = {
    "Add": "+",
    "Mul": "*",
    "FloorDiv": "//",
    "CleanDiv": "//",
    "Mod": "%",
    "PythonMod": "%",
    "Max": "max",
    "Min": "min",
    "Equality": "==",
    "Unequality": "!=",
    "StrictLessThan": "<",
    "LessThan": "<=",
    "StrictGreaterThan": ">",
    "GreaterThan": ">=",
    "And": "and",
    "Or": "or",
    "Not": "not",
}
_POWERS = ("Pow", "PowByNatural")
LARGEST_POWER = 8


def size_guard(placeholders: Sequence[fx.Node], inputs: Sequence[TensorInput]) -> SizeGuard | None:
    """Return the guards on the free sizes of a captured graph's placeholders.

    None when one of them has a form that SizeGuard has not, or speaks of a size that is no input's.
    """
    places = {
        size.symbol: (index, dim)
        for index, wanted in reversed(list(enumerate(inputs)))
        for dim, size in enumerate(wanted.sizes)
        if size.symbol
    }
    environment = _shape_env(placeholders)
    conditions: list[Expression] = []
    for guard in () if environment is None else environment.guards:
        # A size found equal to another, or fixed, since the guard was made has left the inputs.
        expression = environment.replace(guard.expr)
        names = {str(symbol) for symbol in expression.free_symbols}
        if not names <= set(places):
            if guard.expr.free_symbols <= set(environment.var_to_sources):
                return None
            continue  # of a size that values decide; torch.export drops these too
        condition = _written(expression)
        if condition is None:
            return None
        if condition != 1 and condition not in conditions:
            conditions.append(condition)
    return SizeGuard(tuple((name, *place) for name, place in places.items()), tuple(conditions))


def _shape_env(placeholders: Sequence[fx.Node]) -> Any:
    for placeholder in placeholders:
        for size in placeholder.meta["val"].shape:
            if isinstance(size, torch.SymInt):
                return size.node.shape_env
    return None


def _written(expression: Any) -> Expression | None:
    """Return a sympy expression as one of SizeGuard's, or None."""
    kind = type(expression).__name__
    if kind in ("BooleanTrue", "BooleanFalse"):
        return int(kind == "BooleanTrue")
    if expression.is_Symbol:
        return str(expression)
    if getattr(expression, "is_Integer", False):
        return int(expression)
    operands = [_written(operand) for operand in expression.args]
    if not operands or any(operand is None for operand in operands):
        return None
    if kind in _POWERS:
        base, exponent = operands
        is_small = isinstance(exponent, int) and 1 <= exponent <= LARGEST_POWER
        return ("*", *[base] * exponent) if is_small else None  # type: ignore[operator]
    return (_OPERATORS[kind], *operands) if kind in _OPERATORS else None
