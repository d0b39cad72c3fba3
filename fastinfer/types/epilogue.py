"""What happens to an accumulator after the last multiply: one order for every op and backend."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

#: Activations an epilogue can hold, with the number of parameters each takes.
ACTIVATIONS: dict[str, int] = {
    "identity": 0,
    "clamp": 2,
    "silu": 0,
    "gelu": 0,
    "gelu_tanh": 0,
    "hardswish": 0,
    "hardsigmoid": 0,
    "sigmoid": 0,
    "tanh": 0,
    "leaky_relu": 1,
    "elu": 1,
    "mish": 0,
    "softplus": 0,
    "selu": 0,
    "celu": 1,
    "log_sigmoid": 0,
    "hardshrink": 1,
    "softshrink": 1,
    "threshold": 2,  # threshold, value
    "abs": 0,
    "neg": 0,
    "square": 0,
    "exp": 0,
    "erf": 0,
    "sin": 0,
    "cos": 0,
    "add_scalar": 1,
    "mul_scalar": 1,
    "div_scalar": 1,
    "rsub_scalar": 1,  # the number less x
}


@dataclass(frozen=True)
class Activation:
    """A unary function: `name` is a key of `ACTIVATIONS`, `params` its numbers.

    ReLU is `clamp(0, inf)`, ReLU6 is `clamp(0, 6)`; every other function runs on int8 as a
    256-entry table.
    """

    name: str = "identity"
    params: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.name not in ACTIVATIONS:
            raise ValueError(
                f"Activation: expected name in {sorted(ACTIVATIONS)}, got {self.name!r}"
            )
        wanted = ACTIVATIONS[self.name]
        if len(self.params) != wanted:
            raise ValueError(
                f"Activation: {self.name} takes {wanted} parameters, got {len(self.params)}"
            )
        if self.name == "clamp" and not self.params[0] <= self.params[1]:
            raise ValueError(f"Activation: clamp expected lo <= hi, got {self.params}")

    @property
    def is_identity(self) -> bool:
        """True when the function changes nothing."""
        return self.name == "identity"

    @property
    def is_clamp(self) -> bool:
        """True for identity and clamps, which need no table on int8."""
        return self.name in ("identity", "clamp")

    @property
    def bounds(self) -> tuple[float, float]:
        """Lowest and highest output of a clamp; infinite for identity."""
        if self.name == "clamp":
            return self.params[0], self.params[1]
        if self.name == "identity":
            return -math.inf, math.inf
        raise ValueError(f"Activation: {self.name} has no clamp bounds")


RELU = Activation("clamp", (0.0, math.inf))
RELU6 = Activation("clamp", (0.0, 6.0))


@dataclass(frozen=True)
class Epilogue:
    """acc -> x scale -> + bias -> + residual -> activation -> requantize, in this order."""

    activation: Activation = field(default_factory=Activation)
    has_residual: bool = False
