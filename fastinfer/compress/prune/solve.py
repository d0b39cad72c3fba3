"""One layer: from its Grams to its new weight, by the method and pattern asked for."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fastinfer.compress.gram import Gram, Moments
from fastinfer.compress.prune.obs import (
    NotPositiveError,
    damped,
    magnitude_mask,
    obd_mask,
    refit,
    searched_mask,
    sparsegpt,
)
from fastinfer.types.sparsity import Pattern

METHODS = ("magnitude", "obd", "sparsegpt", "obs")
#: Ridges tried on rows that were held out, in units of the inputs' mean variance.
DAMPINGS = (0.01, 0.03, 0.1, 0.3, 1.0)
#: Where no rows are held out, and for the mask.
DEFAULT_DAMPING = 0.1
#: Steps of a refit that only tells ridges apart, and starts from the last one's weights.
PROBE_STEPS = 10
#: SparseGPT's own.
SPARSEGPT_DAMPING = 0.01


@dataclass
class Grams:
    """Rows to fit and rows held out of one group of a layer."""

    fit: Gram
    held: Gram

    @classmethod
    def empty(cls, k: int, n: int) -> Grams:
        """Return Grams of K inputs and N outputs without a row."""
        return cls(Gram(k, n), Gram(k, n))


@dataclass(frozen=True)
class Solution:
    """A layer's new weight as a matrix [N, K], and what its bias should be, [N] float64.

    error: relative, on held-out rows where there are some. damping: None where none was used.
    bias: None without data. reason: why the matrix is the original one, or what to know of it.
    """

    matrix: Tensor
    bias: Tensor | None = None
    error: float | None = None
    damping: float | None = None
    reason: str = ""
    is_dense: bool = False


def solve(
    weight: Tensor, grams: Grams | None, pattern: Pattern, method: str, *, is_centred: bool = True
) -> Solution:
    """Return the pruned matrix of a layer's (or of one group's) weight [N, K].

    grams: None only for "magnitude". is_centred: a bias makes up for means.
    """
    weight = weight.float()
    if not bool(weight.any()):
        return Solution(weight, reason="all weights were zero")
    if grams is None:
        return Solution(weight * magnitude_mask(weight, pattern))
    total = grams.fit.moments(grams.held, is_centred=is_centred)
    if not total.is_finite:
        return _dense(weight, "NaN or infinity in its inputs or outputs")
    if method == "magnitude":
        return _measured(weight * magnitude_mask(weight, pattern), total)
    if method == "obd":
        return _measured(weight * obd_mask(weight, total.hessian.float(), pattern), total)
    try:
        if method == "sparsegpt":
            own = weight.double() @ total.hessian
            problem = damped(weight, total.hessian, own, SPARSEGPT_DAMPING)
            return _measured(sparsegpt(problem, pattern)[0], total, problem.damping)
        return _obs(weight, grams, total, pattern)
    except (NotPositiveError, torch.linalg.LinAlgError) as error:
        return _dense(weight, str(error))


def _obs(weight: Tensor, grams: Grams, total: Moments, pattern: Pattern) -> Solution:
    """Mask by search on all rows, damping by the held-out ones, weights by all again."""
    problem = damped(weight, total.hessian, total.cross, DEFAULT_DAMPING)
    start, mask = searched_mask(problem, pattern, problem.solved())
    damping, error = DEFAULT_DAMPING, None
    if grams.fit.count and grams.held.count:
        fit = grams.fit.moments(is_centred=total.is_centred)
        # About the fitted rows' means: what the bias that they give leaves.
        held = grams.held.about(fit)
        errors = {}
        for tried in DAMPINGS:
            candidate = damped(weight, fit.hessian, fit.cross, tried)
            start = refit(candidate, mask, start, PROBE_STEPS)
            errors[tried] = held.relative_error(start)
        damping = min(errors, key=lambda d: errors[d])
        error = errors[damping]
    problem = damped(weight, total.hessian, total.cross, damping)
    solved = _measured(refit(problem, mask, start), total, problem.damping)
    raised = "" if problem.damping == damping else "damping raised: no Cholesky factor below it"
    return Solution(
        solved.matrix,
        solved.bias,
        solved.error if error is None else error,
        solved.damping,
        raised,
    )


def _measured(matrix: Tensor, moments: Moments, damping: float | None = None) -> Solution:
    bias = moments.y_mean - matrix.double() @ moments.x_mean
    return Solution(matrix, bias, moments.relative_error(matrix), damping)


def _dense(weight: Tensor, reason: str) -> Solution:
    return Solution(weight, None, None, None, reason, is_dense=True)
