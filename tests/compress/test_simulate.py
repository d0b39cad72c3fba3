"""Rounding to codes in float, and the decibels of its error."""

from __future__ import annotations

import math

import pytest
import torch

from fastinfer.compress.quantize.power import Power, sum_of_squares
from fastinfer.compress.quantize.simulate import fake_quantize
from fastinfer.testing.compare import assert_equal
from fastinfer.types import TensorQuant
from fastinfer.types.finite import all_finite


def values(scale=1.0):
    generator = torch.Generator().manual_seed(3)
    return scale * torch.randn(2, 8, 33, 41, generator=generator)


MAPS = [
    TensorQuant((0.011,), 77),
    TensorQuant(tuple(0.005 * (1 + c) for c in range(8)), 128),
    TensorQuant(tuple(0.005 * (1 + c) for c in range(8)), 0, tuple(c - 3.5 for c in range(8))),
]


def test_fake_quantize_per_tensor_is_torchs():
    x, (scale,), zero_point = values(), MAPS[0].scale, MAPS[0].zero_point
    wanted = torch.fake_quantize_per_tensor_affine(x, scale, zero_point, 0, 255)
    assert_equal(fake_quantize(x, MAPS[0], 1), wanted)


@pytest.mark.parametrize("quant", MAPS)
def test_what_is_on_a_maps_codes_stays(quant):
    """The simulation rounds a tensor once for all who read its codes."""
    x = values()
    kept = x.clone()
    coded = fake_quantize(x, quant, 1)
    assert_equal(x, kept)
    assert not torch.equal(coded, x)
    assert_equal(fake_quantize(coded, quant, 1), coded)


@pytest.mark.parametrize("scale", [1.0, 1e-12, 1e-25, 1e25])
@pytest.mark.parametrize("size", [1, 4095, 4096, 9000])
def test_sum_of_squares_is_that_in_float64(scale, size):
    x = values(scale).flatten()[:size]
    wanted = float(x.double().square().sum())
    assert math.isclose(sum_of_squares(x), wanted, rel_tol=(size + 1) * torch.finfo().eps)


def test_power():
    x = values()
    power = Power()
    power.add(x, x)
    assert power.db == math.inf
    power.add(torch.zeros(5), torch.ones(5))
    assert power.db == pytest.approx(10 * math.log10(sum_of_squares(x) / 5))
    silent = Power()
    silent.add(torch.zeros(5), torch.ones(5))
    assert silent.db == -math.inf
    broken = Power()
    broken.add(x, x * math.nan)
    assert math.isnan(broken.db)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e5m2])
def test_all_finite(dtype):
    x = torch.ones(3, 5)
    assert all_finite(x.to(dtype)) and all_finite(x[:0].to(dtype))
    for bad in (math.nan, math.inf, -math.inf):
        x[1, 2] = bad
        assert not all_finite(x.to(dtype))
