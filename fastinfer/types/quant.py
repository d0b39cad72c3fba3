"""How tensors are quantized, as values."""

from __future__ import annotations

import math
from dataclasses import dataclass

GRANULARITIES = ("per_tensor", "per_channel", "per_token")
MODES = ("static", "dynamic", "weight_only")
OBSERVERS = ("minmax", "moving_average", "percentile", "mse", "entropy")


@dataclass(frozen=True)
class QuantSpec:
    """Integer type and sharing of one tensor's scale."""

    dtype: str
    granularity: str
    symmetric: bool

    def __post_init__(self) -> None:
        if self.dtype not in ("uint8", "int8"):
            raise ValueError(f"QuantSpec: expected dtype uint8 or int8, got {self.dtype!r}")
        if self.granularity not in GRANULARITIES:
            raise ValueError(
                f"QuantSpec: expected granularity in {GRANULARITIES}, got {self.granularity!r}"
            )


WEIGHT_INT8 = QuantSpec("int8", "per_channel", symmetric=True)
ACTIVATION_UINT8 = QuantSpec("uint8", "per_tensor", symmetric=False)


@dataclass(frozen=True)
class QuantConfig:
    """What a layer's weight and activation become, and how the activation's range is found."""

    weight: QuantSpec = WEIGHT_INT8
    activation: QuantSpec | None = ACTIVATION_UINT8
    mode: str = "static"
    observer: str = "minmax"

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"QuantConfig: expected mode in {MODES}, got {self.mode!r}")
        if self.observer not in OBSERVERS:
            raise ValueError(
                f"QuantConfig: expected observer in {OBSERVERS}, got {self.observer!r}"
            )
        if (self.activation is None) != (self.mode == "weight_only"):
            raise ValueError(
                "QuantConfig: activation is None exactly when mode is weight_only, "
                f"got activation={self.activation}, mode={self.mode!r}"
            )


@dataclass(frozen=True)
class TensorQuant:
    """Affine map of one activation tensor: x[c] = scale[c] * (q - zero_point) + shift[c].

    `scale` and `shift` have length 1 (whole tensor) or C (per channel); q is uint8.
    """

    scale: tuple[float, ...]
    zero_point: int
    shift: tuple[float, ...] = (0.0,)

    def __post_init__(self) -> None:
        if not self.scale or not all(s > 0 and math.isfinite(s) for s in self.scale):
            raise ValueError("TensorQuant: expected positive finite scales")
        if not 0 <= self.zero_point <= 255:
            raise ValueError(f"TensorQuant: expected zero_point in 0..255, got {self.zero_point}")
        if len(self.shift) not in (1, len(self.scale)):
            raise ValueError(
                f"TensorQuant: expected 1 or {len(self.scale)} shifts, got {len(self.shift)}"
            )

    @property
    def is_per_tensor(self) -> bool:
        """True when one scale serves the whole tensor and nothing is shifted."""
        return len(self.scale) == 1 and self.shift == (0.0,)
