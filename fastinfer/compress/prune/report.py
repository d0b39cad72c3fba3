"""What pruning did to a model: a row for each layer, and totals."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from torch import nn

ATTRIBUTE = "_pruning_report"


@dataclass(frozen=True)
class LayerPruning:
    """What became of one layer.

    pattern: as the user called it, "" where it stays dense for `reason`. weights, zeros: counts.
    error: |dense output - pruned output|² over |dense output's variance|, of rows that were held
    out where there are enough; None without data. damping: the ridge used. reason: also what a
    pruned layer's user should know. predicted_error, predicted_ms: of the network by this layer
    alone, and of the layer in int8, where an allocation chose its sparsity.
    """

    name: str
    pattern: str
    weights: int
    zeros: int
    error: float | None = None
    damping: float | None = None
    reason: str = ""
    predicted_error: float | None = None
    predicted_ms: float | None = None

    @property
    def sparsity(self) -> float:
        """The share of zeros."""
        return self.zeros / self.weights if self.weights else 0.0


@dataclass
class AllocationReport:
    """How layers got sparsities of their own.

    sparsity: the mean over the weights of layers that could be pruned. predicted_error: the sum of
    the layers'. contenders: allocation -> the output's relative error, measured on the whole pruned
    network; chosen: the one that was kept. The milliseconds are of the int8 model on the example,
    with target_ms only: dense, estimated for the allocation, and measured of the result.
    """

    sparsity: float
    predicted_error: float
    chosen: str
    contenders: dict[str, float] = field(default_factory=dict)
    target_ms: float | None = None
    dense_ms: float | None = None
    predicted_ms: float | None = None
    measured_ms: float | None = None

    def __str__(self) -> str:
        """Return lines for people."""
        lines = [
            f"allocation {self.chosen}: {self.sparsity:.1%} zeros where there may be, "
            f"the layers' estimated errors add up to {self.predicted_error:.4g}"
        ]
        if self.contenders:
            tried = ", ".join(f"{name} {error:.4f}" for name, error in self.contenders.items())
            lines.append(f"error of the whole network's output: {tried}")
        if self.target_ms is not None:
            measured = "-" if self.measured_ms is None else f"{self.measured_ms:.3f}"
            lines.append(
                f"int8 ms: target {self.target_ms:.3f}, dense {self.dense_ms:.3f}, "
                f"estimated {self.predicted_ms:.3f}, measured {measured}"
            )
        return "\n".join(lines)


@dataclass
class PruningReport:
    """How a model was pruned. parameters: all of the model's; peak_bytes: memory that pruning took.

    str() is a table for people.
    """

    pattern: str
    sparsity: float
    method: str
    layers: list[LayerPruning] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    parameters: int = 0
    seconds: float = 0.0
    peak_bytes: int = 0
    allocation: AllocationReport | None = None

    @property
    def zeros(self) -> int:
        """Zeros in the layers' weights."""
        return sum(layer.zeros for layer in self.layers)

    @property
    def pruned(self) -> list[LayerPruning]:
        """The layers that were pruned."""
        return [layer for layer in self.layers if layer.pattern]

    def note(self, text: str) -> None:
        """Add a line for people, once."""
        if text not in self.notes:
            self.notes.append(text)

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON-able values."""
        return asdict(self)

    def __str__(self) -> str:
        """Return a table for people."""
        width = max([len(layer.name) for layer in self.layers] + [5])
        lines = [
            f"pruned by {self.method}: {self.pattern}, {len(self.pruned)} of {len(self.layers)} "
            f"layers, {self.zeros:,} zeros of {self.parameters:,} parameters "
            f"({self.zeros / max(1, self.parameters):.1%})",
            f"{self.seconds:.1f} s, {self.peak_bytes / 2**20:.0f} MB at the most",
            f"{'layer':<{width}}  {'weights':>10}  {'zeros':>6}  {'error':>7}  {'damping':>7}",
        ]
        if self.allocation is not None:
            lines[2:2] = str(self.allocation).splitlines()
            lines[-1] += f"  {'alone':>7}  {'ms':>7}"
        for row in self.layers:
            error = "-" if row.error is None else f"{row.error:.4f}"
            damping = "-" if row.damping is None else f"{row.damping:g}"
            alone = ""
            if self.allocation is not None:
                alone = "".join(
                    f"{'-':>7}  " if value is None else f"{value:>7.4f}  "
                    for value in (row.predicted_error, row.predicted_ms)
                )
            lines.append(
                f"{row.name:<{width}}  {row.weights:>10,}  {row.sparsity:>6.1%}  {error:>7}  "
                f"{damping:>7}  {alone}{row.reason}".rstrip()
            )
        return "\n".join([*lines, *(f"note: {text}" for text in self.notes)])


def pruning_report(model: nn.Module) -> PruningReport:
    """Return what `fastinfer.prune` did to make this model.

    Raises:
        TypeError: the model was not returned by `fastinfer.prune`.
    """
    found = getattr(model, ATTRIBUTE, None)
    if not isinstance(found, PruningReport):
        raise TypeError(
            "pruning_report: expected a model returned by fastinfer.prune (channel_report is for "
            f"pattern 'channel'), got {type(model).__module__}.{type(model).__qualname__}"
        )
    return found
