"""What `convert` did, as data: `Report` and its rows."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class LayerReport:
    """One layer: what it became, why, and what that costs and gains.

    Times are milliseconds on the example's shapes; sqnr_db compares with the float layer's output.
    """

    name: str
    kind: str
    geometry: str
    precision: str
    reason: str = ""
    float_ms: float | None = None
    fast_ms: float | None = None
    sqnr_db: float | None = None
    weight_bytes: int = 0
    float_weight_bytes: int = 0


@dataclass
class Report:
    """Everything a user may ask about a converted model."""

    path: str = ""
    layers: list[LayerReport] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    passes: dict[str, int] = field(default_factory=dict)
    float_ms: float | None = None
    fast_ms: float | None = None
    sqnr_db: float | None = None
    convert_s: float | None = None
    environment: dict[str, Any] = field(default_factory=dict)

    @property
    def speedup(self) -> float | None:
        """Original time divided by converted time on the example, or None when not timed."""
        if self.float_ms is None or not self.fast_ms:
            return None
        return self.float_ms / self.fast_ms

    @property
    def fallbacks(self) -> list[LayerReport]:
        """Layers that stayed float, each with its reason."""
        return [row for row in self.layers if row.precision in ("fp32", "bf16")]

    def note(self, text: str) -> None:
        """Add a sentence, once."""
        if text not in self.notes:
            self.notes.append(text)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-able data."""
        return {**asdict(self), "speedup": self.speedup}
