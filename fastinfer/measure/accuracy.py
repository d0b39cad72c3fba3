"""How far one tensor is from another, streamed over batches."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch


@dataclass
class ErrorSums:
    """Running sums over pairs of tensors, from which every error figure follows.

    Integer and boolean tensors count as numbers. `non_finite` counts values that are finite in
    the reference and not in the other.
    """

    signal: float = 0.0
    noise: float = 0.0
    dot: float = 0.0
    energy: float = 0.0
    max_abs: float = 0.0
    values: int = 0
    non_finite: int = 0

    def add(self, reference: torch.Tensor, actual: torch.Tensor) -> None:
        """Add one pair of tensors of equal shape, any dtype.

        Raises:
            ValueError: the shapes differ.
        """
        if reference.shape != actual.shape:
            raise ValueError(
                f"compare: expected a tensor {list(reference.shape)} like the reference's, "
                f"got {list(actual.shape)}"
            )
        want = _real(reference)
        have = _real(actual).to(want.device, want.dtype)
        self.values += want.numel()
        if want.numel() and not self._add_finite(want, have):
            usable = torch.isfinite(want)
            broken = usable & ~torch.isfinite(have)
            self.non_finite += int(broken.sum())
            self.values -= int((~usable).sum())
            chosen = usable & ~broken
            if bool(chosen.any()):
                self._add_finite(want[chosen], have[chosen])

    def _add_finite(self, want: torch.Tensor, have: torch.Tensor) -> bool:
        """Add the sums when all values are finite; otherwise add nothing and return False."""
        # Norms read each tensor once and accumulate in float64 without a float64 copy.
        difference = have - want
        signal, noise, energy = (
            float(torch.linalg.vector_norm(x, dtype=torch.float64)) ** 2
            for x in (want, difference, have)
        )
        if not (math.isfinite(signal) and math.isfinite(energy)):
            return False
        self.signal += signal
        self.noise += noise
        self.energy += energy
        self.dot += (signal + energy - noise) / 2
        self.max_abs = max(self.max_abs, float(difference.abs().max()))
        return True

    @property
    def sqnr_db(self) -> float:
        """Signal to noise in dB: inf when equal, -inf when a value is not finite."""
        if self.non_finite:
            return -math.inf
        if self.noise == 0:
            return math.inf
        return 10 * math.log10(self.signal / self.noise) if self.signal else -math.inf

    @property
    def cosine(self) -> float:
        """Cosine of the angle between both, 1 when both are zero, 0 when only one is."""
        if self.non_finite:
            return 0.0
        if self.signal == 0 or self.energy == 0:
            return float(self.signal == self.energy)
        return self.dot / math.sqrt(self.signal * self.energy)


def _real(x: torch.Tensor) -> torch.Tensor:
    """Return x in float32 when that holds all its values, else in float64."""
    x = (x.dequantize() if x.is_quantized else x).detach()
    narrow = x.dtype in (torch.float32, torch.float16, torch.bfloat16, torch.uint8, torch.int8)
    return x.to(torch.float32 if narrow else torch.float64)


def _errors(reference: torch.Tensor, actual: torch.Tensor) -> ErrorSums:
    sums = ErrorSums()
    sums.add(reference, actual)
    return sums


def sqnr_db(reference: torch.Tensor, actual: torch.Tensor) -> float:
    """Return 10 log10(sum reference^2 / sum (actual - reference)^2) in dB, shapes equal.

    inf when both are equal, -inf when actual is not finite where the reference is.

    Raises:
        ValueError: the shapes differ.
    """
    return _errors(reference, actual).sqnr_db


def cosine(reference: torch.Tensor, actual: torch.Tensor) -> float:
    """Return the cosine similarity of two tensors of equal shape, taken as one vector each.

    Raises:
        ValueError: the shapes differ.
    """
    return _errors(reference, actual).cosine


def max_abs(reference: torch.Tensor, actual: torch.Tensor) -> float:
    """Return the largest absolute difference of two tensors of equal shape.

    Raises:
        ValueError: the shapes differ.
    """
    return _errors(reference, actual).max_abs


def top1_agreement(
    reference: torch.Tensor, actual: torch.Tensor, *, min_probability: float = 0.0
) -> tuple[float, int]:
    """Return the share of rows with the same largest logit, and the number of rows compared.

    Args:
        reference: [N, classes] float logits.
        actual: [N, classes] float logits.
        min_probability: compare only rows where the reference's largest probability is above it.

    Raises:
        ValueError: not two matrices of equal shape.
    """
    if reference.dim() != 2 or reference.shape != actual.shape:
        raise ValueError(
            "top1_agreement: expected two [N, classes] tensors of equal shape, "
            f"got {list(reference.shape)} and {list(actual.shape)}"
        )
    probability = reference.double().softmax(dim=1).amax(dim=1)
    chosen = probability > min_probability
    same = (reference.argmax(dim=1) == actual.argmax(dim=1))[chosen]
    count = int(chosen.sum())
    return (float(same.double().mean()) if count else math.nan), count
