"""Optimal brain surgeon for one layer: which weights go, and what the others become.

All on W [N, K], the inputs' second moments H [K, K] and those of wanted outputs with inputs
T [N, K]: the error of weights V is tr(V H Vᵀ) - 2 tr(V Tᵀ), up to a constant.

Source: Hassibi and Stork, "Second order derivatives for network pruning: optimal brain surgeon"
(1993); Frantar and Alistarh, "SparseGPT" (2023); Meng et al., "ALPS" (2024), for the search by the
alternating direction method of multipliers and the refit by conjugate gradients.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fastinfer.compress.prune.masks import largest_kept
from fastinfer.types.sparsity import NM, Pattern

#: Columns that SparseGPT chooses among at a time, where the pattern leaves it open.
BLOCK = 128
#: Every input's own share of damping, so that a faint one's weights stay bounded.
OWN_DAMPING = 1e-3
#: How often damping is raised tenfold before a layer is given up.
RAISES = 4
#: Refit: steps until the error changes no more (20 steps and 40 give the same cosine on MiniLM).
STEPS = 20
#: Mask search: penalties in units of the inputs' variance, and rounds at each. The long one makes
#: errors of MiniLM's and MobileNetV2's layers 1 % smaller; the short one takes a third of the time,
#: which is what counts from so many inputs.
LONG_SEARCH = ((0.03, 0.06, 0.12, 0.25, 0.5, 1.0, 2.0, 4.0), 4)
SHORT_SEARCH = ((0.1, 0.5, 2.0), 8)
SHORT_FROM = 2048


class NotPositiveError(ValueError):
    """H has no Cholesky factor, however much damping was added."""


@dataclass(frozen=True)
class Problem:
    """Least squares with a ridge toward the weights at hand, float32; `damping` is the ridge used.

    weight [N, K]: original. hessian, cross: H and T with the ridge in them. factor: H's Cholesky
    factor, lower.
    """

    weight: Tensor
    hessian: Tensor
    cross: Tensor
    factor: Tensor
    damping: float

    def solved(self) -> Tensor:
        """Return the weights [N, K] with the least error when none is zero."""
        return torch.cholesky_solve(self.cross.t(), self.factor).t()


def damped(weight: Tensor, hessian: Tensor, cross: Tensor, damping: float) -> Problem:
    """Return the problem with a ridge of `damping` times the inputs' mean variance.

    weight: [N, K]. hessian: [K, K], cross: [N, K], float64. Damping is raised where H has no
    Cholesky factor.

    Raises:
        NotPositiveError: none at ten thousand times the damping either: NaN, for one.
    """
    diagonal = hessian.diagonal()
    level = float(diagonal.mean())
    # Inputs that never vary: nothing to fit, so the ridge alone decides, whatever its size.
    level = level if level > 0 else 1.0
    for _ in range(RAISES + 1):
        ridge = damping * level + OWN_DAMPING * diagonal
        h = (hessian + torch.diag(ridge)).float()
        factor, info = torch.linalg.cholesky_ex(h)
        if not int(info) and bool(torch.isfinite(factor.diagonal()).all()):
            t = (cross + weight.double() * ridge).float()
            return Problem(weight.float(), h, t, factor, damping)
        damping *= 10
    raise NotPositiveError(f"no Cholesky factor at a damping of {damping / 10:g}")


def magnitude_mask(weight: Tensor, pattern: Pattern) -> Tensor:
    """Return the mask [N, K] of the largest weights."""
    return largest_kept(weight.square(), pattern)


def obd_mask(weight: Tensor, hessian: Tensor, pattern: Pattern) -> Tensor:
    """Return the mask [N, K] of the weights whose loss alone costs most: w² H_jj.

    Source: LeCun, Denker and Solla, "Optimal brain damage" (1989).
    """
    return largest_kept(weight.square() * hessian.diagonal().clamp(min=0), pattern)


def sparsegpt(
    problem: Problem, pattern: Pattern, start: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return weights and mask [N, K]: column by column, later weights make up for what goes.

    start: the weights to prune, instead of the original ones.
    """
    w = (problem.weight if start is None else start).clone()
    k = w.shape[1]
    u = _inverse_factor(problem.hessian)
    group = pattern.m if isinstance(pattern, NM) else BLOCK
    block = group * max(1, BLOCK // 2 // group)
    mask = torch.ones_like(w, dtype=torch.bool)
    for first in range(0, k, block):
        last = min(first + block, k)
        part, errors = w[:, first:last].clone(), w.new_zeros(w.shape[0], last - first)
        ub = u[first:last, first:last]
        for j in range(last - first):
            if j % group == 0:
                end = min(j + group, last - first)
                scores = (part[:, j:end] / ub.diagonal()[j:end]).square()
                mask[:, first + j : first + end] = largest_kept(scores, pattern)
            gone = ~mask[:, first + j]
            errors[:, j] = torch.where(gone, part[:, j], 0) / ub[j, j]
            part[:, j:] -= errors[:, j, None] * ub[j, j:]
            part[:, j].masked_fill_(gone, 0)
        w[:, first:last] = part
        w[:, last:] -= errors @ u[first:last, last:]
    return w * mask, mask


def _inverse_factor(hessian: Tensor) -> Tensor:
    """Return the upper U with UᵀU the inverse of H [K, K], in H's dtype.

    From the factor of H read backwards: no inverse is factored, which would square the error.
    """
    backwards = torch.linalg.cholesky(hessian.double().flip(0, 1)).flip(0, 1)
    eye = torch.eye(len(hessian), dtype=torch.float64)
    inverse: Tensor = torch.linalg.solve_triangular(backwards, eye, upper=True)
    return inverse.to(hessian.dtype)


def searched_mask(problem: Problem, pattern: Pattern, start: Tensor) -> tuple[Tensor, Tensor]:
    """Return weights and mask [N, K] by alternating between least squares and the pattern.

    Both are pulled together harder at each penalty, so that all weights of a row settle at once;
    SparseGPT decides on early columns while later ones still have every weight.
    """
    scale = problem.hessian.diagonal().sqrt()
    h, t = problem.hessian / scale / scale[:, None], problem.cross / scale
    eye = torch.eye(len(h))
    d = start * scale
    multiplier, before = torch.zeros_like(d), 0.0
    d = d * largest_kept(d.square(), pattern)
    penalties, rounds = LONG_SEARCH if len(h) < SHORT_FROM else SHORT_SEARCH
    for penalty in penalties:
        factor = torch.linalg.cholesky(h + penalty * eye)
        multiplier *= before / penalty
        before = penalty
        for _ in range(rounds):
            w = torch.cholesky_solve((t + penalty * (d - multiplier)).t(), factor).t()
            v = w + multiplier
            mask = largest_kept(v.square(), pattern)
            d = v * mask
            multiplier += w - d
    return d / scale, mask


def refit(problem: Problem, mask: Tensor, start: Tensor, steps: int = STEPS) -> Tensor:
    """Return the weights [N, K] of least error among those that are zero where mask is False.

    Conjugate gradients for all rows at once, preconditioned by H's diagonal; start: [N, K].
    """
    h, keep = problem.hessian, mask.float()
    precondition = 1 / h.diagonal()
    w = start * keep
    r = (problem.cross - w @ h) * keep
    z = r * precondition
    p, rz = z, (r * z).sum(1, keepdim=True)
    for _ in range(steps):
        q = (p @ h) * keep
        step = rz / (p * q).sum(1, keepdim=True).clamp(min=1e-30)
        w = w + step * p
        r = r - step * q
        z = r * precondition
        rz, last = (r * z).sum(1, keepdim=True), rz
        p = z + rz / last.clamp(min=1e-30) * p
    return w
