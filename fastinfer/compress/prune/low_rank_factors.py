"""A matrix as the product of two of lower rank."""

from __future__ import annotations

import torch
from torch import Tensor

METHODS = ("svd", "random")

#: Columns beyond the rank, and passes over the matrix, of the randomized method.
OVERSAMPLING, PASSES = 10, 2


def low_rank_factors(
    matrix: Tensor,
    rank: int,
    *,
    hessian: Tensor | None = None,
    method: str = "svd",
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Return left [N, rank] and right [rank, K] whose product is near the matrix [N, K].

    Left has orthonormal columns and right is what the matrix becomes in them.

    Args:
        matrix: [N, K] floating point.
        rank: 1..min(N, K).
        hessian: [K, K], the mean of products of inputs; outputs on such inputs are kept then.
        method: "svd", the best there is up to what the randomized range finder misses, or "random",
            one projection on random inputs.
        generator: of random numbers; None is seeded with 0.

    Raises:
        ValueError: rank or method is none of these.

    Source: Halko, Martinsson, Tropp, Finding Structure with Randomness (2011), algorithms 4.1, 4.4.
    """
    n, k = matrix.shape
    if not 1 <= rank <= min(n, k):
        raise ValueError(f"low_rank_factors: rank: expected 1..{min(n, k)}, got {rank}")
    if method not in METHODS:
        raise ValueError(
            f"low_rank_factors: method: expected one of {list(METHODS)}, got {method!r}"
        )
    generator = generator or torch.Generator().manual_seed(0)
    weighted = matrix.double()
    if hessian is not None:
        weighted = weighted @ _root(hessian.double())
    passes = PASSES if method == "svd" else 0
    width = min(rank + OVERSAMPLING, n, k) if method == "svd" else rank
    sketch = torch.randn(k, width, dtype=torch.float64, generator=generator)
    basis = torch.linalg.qr(weighted @ sketch).Q
    for _ in range(passes):
        basis = torch.linalg.qr(weighted.t() @ basis).Q
        basis = torch.linalg.qr(weighted @ basis).Q
    if method == "svd":
        inner = torch.linalg.svd(basis.t() @ weighted, full_matrices=False).U
        basis = basis @ inner[:, :rank]
    return basis, basis.t() @ matrix.double()


def _root(hessian: Tensor) -> Tensor:
    """Return R with R R' = hessian, for one that need not be definite."""
    values, vectors = torch.linalg.eigh(hessian)
    root: Tensor = vectors * values.clamp(min=0).sqrt()
    return root


def rank_of_energy(matrix: Tensor, energy: float, hessian: Tensor | None = None) -> int:
    """Return the smallest rank that keeps this share of the output's power, 0..1."""
    weighted = matrix.double()
    if hessian is not None:
        weighted = weighted @ _root(hessian.double())
    powers = torch.linalg.svdvals(weighted).square()
    total = float(powers.sum())
    if total == 0:
        return 1
    reached = powers.cumsum(0) >= energy * total * (1 - 1e-12)
    return int(reached.int().argmax()) + 1 if bool(reached.any()) else len(powers)
