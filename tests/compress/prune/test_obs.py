"""One layer's masks and weights: against brute force, and each method against the next."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastinfer.compress.gram import Gram
from fastinfer.compress.prune.obs import (
    NotPositiveError,
    damped,
    refit,
    searched_mask,
    sparsegpt,
)
from fastinfer.compress.prune.solve import METHODS, Grams, solve
from fastinfer.types.sparsity import NM, Unstructured


def correlated(p, k, n, seed=0):
    """Return inputs [p, k] that share a few directions, weights [n, k] and outputs."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(k // 3 + 1, k, generator=generator)
    x = torch.randn(p, k // 3 + 1, generator=generator) @ mix
    x = x + 0.5 * torch.randn(p, k, generator=generator)
    w = torch.randn(n, k, generator=generator)
    return x, w, x @ w.t() + 0.3 * torch.randn(p, n, generator=generator)


def grams_of(x, y, held=0.25):
    grams = Grams.empty(x.shape[1], y.shape[1])
    cut = round(len(x) * (1 - held))
    grams.fit.add(x[:cut], y[:cut])
    grams.held.add(x[cut:], y[cut:])
    return grams


def problem_of(x, w, y, damping=0.01):
    gram = Gram(x.shape[1], y.shape[1])
    gram.add(x, y)
    moments = gram.moments()
    return damped(w, moments.hessian, moments.cross, damping)


def objective(problem, v):
    v = v.double()
    h, t = problem.hessian.double(), problem.cross.double()
    return ((v @ h - 2 * t) * v).sum(1)


def best_on(problem, keep):
    """Return least squares of one row on the kept inputs, by a direct solve."""
    h, t = problem.hessian.double(), problem.cross.double()[0]
    v = torch.zeros_like(t)
    v[keep] = torch.linalg.solve(h[keep][:, keep], t[keep])
    return v[None]


def test_refit_is_least_squares_on_the_support():
    x, w, y = correlated(400, 48, 6)
    problem = problem_of(x, w, y)
    mask = torch.rand(6, 48, generator=torch.Generator().manual_seed(2)) < 0.4
    # As many steps as there are unknowns: conjugate gradients end there, up to rounding.
    found = refit(problem, mask, w, steps=60)
    h, t = problem.hessian.double(), problem.cross.double()
    assert torch.equal(found == 0, ~mask)
    for row in range(6):
        keep = mask[row]
        wanted = torch.linalg.solve(h[keep][:, keep], t[row, keep])
        torch.testing.assert_close(found[row, keep].double(), wanted, rtol=1e-3, atol=1e-3)


def test_refit_of_a_row_without_weights_is_zero():
    x, w, y = correlated(100, 16, 3)
    mask = torch.ones(3, 16, dtype=torch.bool)
    mask[1] = False
    found = refit(problem_of(x, w, y), mask, w)
    assert not found[1].any() and torch.isfinite(found).all()


def test_masks_against_every_mask():
    """2 of 8 inputs kept: the best of all 28 by brute force, and how near each method comes."""
    ratios = {"search": [], "sparsegpt": [], "magnitude": []}
    for seed in range(12):
        x, w, y = correlated(200, 8, 1, seed)
        problem = problem_of(x, w, y)
        every = [
            float(objective(problem, best_on(problem, list(keep))))
            for keep in itertools.combinations(range(8), 2)
        ]
        least = min(every)
        masks = {
            "search": searched_mask(problem, NM(2, 8), problem.solved())[1],
            "sparsegpt": sparsegpt(problem, NM(2, 8))[1],
            "magnitude": w.square() >= w.square().topk(2).values.min(),
        }
        for name, mask in masks.items():
            assert int(mask.sum()) == 2
            value = float(objective(problem, best_on(problem, mask[0])))
            assert value >= least - 1e-6 * abs(least)
            # Of what can be gained over all weights zero, which costs nothing.
            ratios[name].append(value / least)
    means = {name: sum(r) / len(r) for name, r in ratios.items()}
    assert means["search"] > means["sparsegpt"] - 0.02 and means["search"] > means["magnitude"]
    assert means["search"] > 0.95


PATTERNS = [
    NM(32, 64), NM(16, 64), NM(8, 64), NM(32, 64, 2), NM(16, 64, 2), NM(2, 4), NM(1, 8),
    Unstructured(0.5), Unstructured(0.25),
]  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_obs_beats_sparsegpt_beats_magnitude(pattern):
    x, w, y = correlated(2000, 128, 48)
    errors = {}
    grams = grams_of(x[:1500], y[:1500])
    moments = grams_of(x[1500:], y[1500:], held=0).fit.moments()
    for method in ("magnitude", "sparsegpt", "obs"):
        errors[method] = moments.relative_error(solve(w, grams, pattern, method).matrix)
    assert errors["obs"] < errors["sparsegpt"] < errors["magnitude"]


def check_pattern(matrix, pattern):
    kept = matrix != 0
    if isinstance(pattern, Unstructured):
        assert int(kept.sum()) <= round(pattern.density * kept.numel()) + kept.shape[0]
        return
    k = matrix.shape[1]
    for start in range(0, k, pattern.m):
        width = min(pattern.m, k - start)
        most = pattern.n if width == pattern.m else round(pattern.density * width)
        assert int(kept[:, start : start + width].sum(1).max()) <= most
    if pattern.share == 2:
        for block in range(0, len(kept) - 31, 32):
            assert torch.equal(kept[block : block + 16], kept[block + 16 : block + 32])


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 40), st.integers(64, 150), st.sampled_from(PATTERNS), st.sampled_from(METHODS),
    st.integers(0, 99),
)  # fmt: skip
def test_masks_obey_their_pattern(n, k, pattern, method, seed):
    x, w, y = correlated(60, k, n, seed)
    found = solve(w, grams_of(x, y), pattern, method)
    assert not found.is_dense and torch.isfinite(found.matrix).all()
    check_pattern(found.matrix, pattern)


def test_nothing_pruned_is_the_layer_itself():
    """With every weight kept and outputs the layer's own, OBS answers the original weights."""
    x, w, _ = correlated(500, 64, 8)
    found = solve(w, grams_of(x, x @ w.t()), NM(64, 64), "obs")
    torch.testing.assert_close(found.matrix, w, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("method", ["obd", "sparsegpt", "obs"])
def test_the_mean_output_is_exact(method):
    x, w, y = correlated(300, 64, 8)
    x, y = x + 5, y - 3
    found = solve(w, grams_of(x, y), NM(16, 64), method)
    answered = x.double() @ found.matrix.double().t() + found.bias
    torch.testing.assert_close(answered.mean(0), y.double().mean(0), rtol=1e-4, atol=1e-4)


def test_inputs_that_never_vary_and_weights_that_are_zero():
    x, w, _ = correlated(200, 64, 8)
    x[:, :10] = 0
    w[2] = 0
    for method in METHODS:
        for weight in (w, w * 0):
            found = solve(weight, grams_of(x, x @ weight.t()), NM(16, 64), method)
            assert torch.isfinite(found.matrix).all()
            check_pattern(found.matrix, NM(16, 64))
    still = solve(w, grams_of(x * 0, (x * 0) @ w.t()), NM(16, 64), "obs")
    assert torch.isfinite(still.matrix).all() and int((still.matrix != 0).sum()) > 0


def test_nan_keeps_the_layer_and_says_so():
    x, w, y = correlated(100, 64, 4)
    x[3, 5] = float("nan")
    found = solve(w, grams_of(x, y), NM(16, 64), "obs")
    assert found.is_dense and torch.equal(found.matrix, w) and "NaN" in found.reason
    with pytest.raises(NotPositiveError, match="no Cholesky factor"):
        damped(w, torch.full((64, 64), float("nan")).double(), torch.zeros(4, 64).double(), 0.1)


def test_damping_is_raised_until_there_is_a_factor():
    k = 32
    negative = torch.eye(k, dtype=torch.float64)
    negative[0, 1] = negative[1, 0] = 1.5  # an eigenvalue of -0.5
    found = damped(torch.zeros(2, k), negative, torch.zeros(2, k, dtype=torch.float64), 0.01)
    assert found.damping == pytest.approx(1.0)
