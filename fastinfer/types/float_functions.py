"""Names of what float steps compute; csrc/cpu/float_kernels.h numbers them in this order."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

#: Of two numbers.
FLOAT_BINARY = ("add", "sub", "mul", "div", "maximum", "minimum", "prelu")
#: Of one; a clamp's numbers are its bounds, a leaky_relu's is its slope.
FLOAT_UNARY = (
    "clamp", "abs", "neg", "leaky_relu", "square", "reciprocal", "sqrt", "exp", "sigmoid", "tanh",
    "silu", "gelu", "gelu_tanh",
)  # fmt: skip
#: Of all numbers along some dimensions.
FLOAT_REDUCE = ("sum", "mean", "norm", "amax", "amin")

#: Those that torch rounds differently from one CPU to the next, so that they are ops of our own.
OWN_UNARY = ("sqrt", "exp", "sigmoid", "tanh", "silu", "gelu", "gelu_tanh")
OWN_REDUCE = ("sum", "mean", "norm")

#: How a pad fills, as its number in a program says.
PAD_MODES = ("constant", "reflect", "replicate", "circular")


def reshape_sizes(x: Sequence[int], like: Sequence[int], sizes: Sequence[int]) -> list[int]:
    """Return the sizes of a reshape step's result.

    x, like: the shapes it reads. sizes: -1 what is left, -2 - i the size of dimension i of like.
    """
    found = [like[-2 - n] if n <= -2 else n for n in sizes]
    if -1 not in found:
        return found
    # Of one sample where the batch stays, so that an empty one has a shape, too.
    first = 1 if sizes[0] == -2 and like[0] == x[0] else 0
    known = prod(n for n in found[first:] if n != -1)
    found[found.index(-1)] = 0 if known == 0 else prod(x[first:]) // known
    return found


def memory_order(rank: int) -> list[int]:
    """Return a tensor's dimensions as they lie in the engine's memory, outermost first."""
    return [0, 2, 3, 1] if rank == 4 else list(range(rank))


def lies_together(shape: Sequence[object], dims: Sequence[int]) -> bool:
    """Return True when what is reduced along dims lies together in the engine's memory.

    shape: sizes of the tensor, ints where they are known.
    """
    order = [d for d in memory_order(len(shape)) if shape[d] != 1 or d in dims]
    places = [order.index(d) for d in dims]
    return max(places) - min(places) + 1 == len(places)
