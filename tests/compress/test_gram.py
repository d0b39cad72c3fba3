"""Gram: moments are those of all rows at once, whatever the portions and the means."""

from __future__ import annotations

import pytest
import torch

from fastinfer.compress.gram import Gram


def rows(p, k, n, offset=0.0):
    generator = torch.Generator().manual_seed(p + k + n)
    x = torch.randn(p, k, generator=generator) + offset
    return x, torch.randn(p, n, generator=generator) - offset


@pytest.mark.parametrize("offset", [0.0, 100.0])
@pytest.mark.parametrize("is_centred", [True, False])
def test_moments_are_those_of_all_rows(offset, is_centred):
    x, y = rows(300, 12, 5, offset)
    grams = [Gram(12, 5) for _ in range(3)]
    grams[0].add(x[:7], y[:7])
    grams[0].add(x[7:100], y[7:100])
    grams[1].add(x[100:], y[100:])
    found = grams[0].moments(*grams[1:], is_centred=is_centred)
    x, y = x.double(), y.double()
    x_mean, y_mean = x.mean(0), y.mean(0)
    if is_centred:
        x, y = x - x_mean, y - y_mean
        # Means of float32 rows, summed in float64.
        torch.testing.assert_close(found.x_mean, x_mean, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(found.y_mean, y_mean, rtol=1e-6, atol=1e-6)
    # Products of float32 differences, at most a few units each: 300 of them, eps 6e-8.
    torch.testing.assert_close(found.hessian, x.t() @ x / 300, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.cross, y.t() @ x / 300, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.power, y.square().mean(0), rtol=1e-5, atol=1e-5)


def test_relative_error_is_that_of_the_rows():
    x, y = rows(200, 8, 4, 3.0)
    gram = Gram(8, 4)
    gram.add(x, y)
    weight = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    moments = gram.moments()
    missed = (y - x @ weight.t()).double()
    wanted = (missed - missed.mean(0)).square().sum() / (
        y.double() - y.double().mean(0)
    ).square().sum()
    assert moments.relative_error(weight) == pytest.approx(float(wanted), rel=1e-5)


def test_held_rows_are_judged_with_the_bias_of_the_others():
    x, y = rows(100, 6, 3)
    fit, held = Gram(6, 3), Gram(6, 3)
    fit.add(x[:60], y[:60])
    held.add(x[60:] + 1, y[60:])
    about = held.about(fit.moments())
    weight = torch.randn(3, 6, generator=torch.Generator().manual_seed(1))
    bias = y[:60].mean(0) - x[:60].mean(0) @ weight.t()
    missed = (y[60:] - (x[60:] + 1) @ weight.t() - bias).double().square().sum() / 40
    wanted = missed / about.power.sum()
    assert about.relative_error(weight) == pytest.approx(float(wanted), rel=1e-4)


def test_no_rows_and_nan():
    gram = Gram(3, 2)
    gram.add(torch.zeros(0, 3), torch.zeros(0, 2))
    with pytest.raises(ValueError, match="expected at least one row"):
        gram.moments()
    with pytest.raises(ValueError, match="expected at least one row"):
        gram.about(rows_moments())
    gram.add(torch.full((2, 3), float("nan")), torch.zeros(2, 2))
    assert not gram.moments().is_finite


def rows_moments():
    gram = Gram(3, 2)
    gram.add(*rows(5, 3, 2))
    return gram.moments()
