"""How sparse at which step: masks that grow while a model is trained."""

from __future__ import annotations

from dataclasses import dataclass

from fastinfer.types.sparsity import NM, Pattern, Unstructured


@dataclass(frozen=True)
class CubicSchedule:
    """Sparsity from `initial` to its end between two steps: fast at first, while weights are many.

    Args:
        start: the optimizer step, from 0, after which the first mask is made.
        end: the step after which sparsity is the one asked for; masks are held from then on.
        every: steps between two masks.
        initial: share of zeros, 0..1, of the first mask.

    Source: Zhu and Gupta, To prune, or not to prune (2017), section 3.
    """

    start: int
    end: int
    every: int = 1
    initial: float = 0.0

    def __post_init__(self) -> None:
        for name in ("start", "end", "every"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"CubicSchedule: {name}: expected a whole number, got {value!r}")
        if not 0 <= self.start <= self.end:
            raise ValueError(
                f"CubicSchedule: start, end: expected 0 <= start <= end, got start={self.start}, "
                f"end={self.end}"
            )
        if self.every < 1:
            raise ValueError(f"CubicSchedule: every: expected 1 step or more, got {self.every}")
        if not 0 <= self.initial < 1:
            raise ValueError(f"CubicSchedule: initial: expected 0..1, got {self.initial}")

    def is_update(self, step: int) -> bool:
        """Return True where masks are made anew after this step."""
        if not self.start <= step <= self.end:
            return False
        return step == self.end or (step - self.start) % self.every == 0

    def sparsity(self, step: int, final: float) -> float:
        """Return the share of zeros after this step, given the one at the end."""
        if step < self.start:
            return 0.0
        left = (self.end - step) / (self.end - self.start) if step < self.end else 0.0
        return final + (self.initial - final) * left**3


def pattern_at(final: Pattern, sparsity: float) -> Pattern:
    """Return the pattern on its way to `final` whose share of zeros is nearest to `sparsity`.

    Of N:M patterns that is a whole n; sharing stays. Never sparser than final.
    """
    if isinstance(final, Unstructured):
        return Unstructured(max(final.density, 1 - sparsity))
    n = round((1 - sparsity) * final.m)
    return NM(min(final.m, max(final.n, n)), final.m, final.share)
