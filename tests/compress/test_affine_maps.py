"""Affine maps: zero is exact, codes stay in 0..255, channels keep their precision."""

from __future__ import annotations

import math

import pytest
import torch

from fastinfer.compress.quantize import affine_maps
from fastinfer.types import Activation, TensorQuant
from fastinfer.types.epilogue import RELU


def decoded(quant, code, channel=0):
    shift = quant.shift[channel] if len(quant.shift) > 1 else quant.shift[0]
    return quant.scale[channel] * (code - quant.zero_point) + shift


@pytest.mark.parametrize(
    "bounds", [(-1.0, 3.0), (0.0, 6.0), (2.0, 5.0), (-4.0, -1.0), (0.0, 0.0), (-1e-20, 1e-20)]
)
def test_per_tensor(bounds):
    quant = affine_maps.per_tensor(*bounds)
    step = quant.scale[0]
    assert decoded(quant, quant.zero_point) == 0.0
    assert decoded(quant, 0) <= min(bounds[0], 0.0) + step / 2 + 1e-6 * step
    assert decoded(quant, 255) >= max(bounds[1], 0.0) - step / 2 - 1e-3 * step
    assert float(torch.tensor(step)) == step  # what float32 holds


def test_before_activation_cuts_the_flat_part():
    wide = affine_maps.before_activation(Activation("hardswish"), -100.0, 5.0)
    plain = affine_maps.before_activation(Activation("elu", (1.0,)), -100.0, 5.0)
    assert wide.scale[0] < 0.1 < plain.scale[0]
    assert decoded(wide, 255) == pytest.approx(5.0, abs=wide.scale[0])
    assert affine_maps.before_activation(RELU, -1.0, 1.0).scale[0] > 0


def test_widths_are_never_zero():
    width = affine_maps.widths(torch.tensor([0.0, -1.0, 2.0]), torch.tensor([0.0, 1.0, 2.0]))
    assert float(width.min()) > 0 and float(width[1]) == 2.0
    assert float(affine_maps.widths(torch.zeros(2), torch.zeros(2)).min()) > 0


def test_smoothing_never_narrows():
    g = torch.Generator().manual_seed(0)
    width = torch.rand(50, generator=g, dtype=torch.float64) + 0.01
    extent = torch.rand(50, generator=g, dtype=torch.float64)
    for alpha in (0.0, 0.5, 1.0):
        result = affine_maps.smoothing(width, extent, alpha)
        assert bool((result >= width * (1 - 1e-12)).all())
        assert bool(torch.isclose(result, width).any())
    assert affine_maps.smoothing(width, None, 0.5) is width


def test_per_channel_maps_cover_their_channels():
    lo = torch.tensor([-1.0, -0.1, 2.0], dtype=torch.float64)
    hi = torch.tensor([3.0, 0.2, 2.5], dtype=torch.float64)
    positive = affine_maps.per_channel_positive(hi, math.inf)
    shifted = affine_maps.per_channel_shifted(lo, hi, affine_maps.widths(lo, hi))
    assert positive.zero_point == 0 and not shifted.is_per_tensor
    for c in range(3):
        step = positive.scale[c]
        assert decoded(positive, 255, c) >= float(hi[c]) - step * 1e-4
        slack = shifted.scale[c] * 1.01
        assert decoded(shifted, 0, c) <= float(lo[c]) + slack
        assert decoded(shifted, 255, c) >= float(hi[c]) - slack
    limited = affine_maps.per_channel_positive(torch.tensor([3.0, 90.0]), 6.0)
    assert limited.scale == pytest.approx((3 / 255, 6 / 255))


def test_tensor_quant_refuses():
    for arguments in [((), 0), ((0.0,), 0), ((1.0,), 256), ((1.0,), -1), ((math.nan,), 0),
                      ((1.0,), 0, (0.0, 1.0))]:  # fmt: skip
        with pytest.raises(ValueError, match="TensorQuant"):
            TensorQuant(*arguments)


def test_parts_of_one_zero_point_keep_their_codes():
    parts = [TensorQuant((0.5,), 0), TensorQuant((0.01,), 0), TensorQuant((2.0,), 0)]
    quant = affine_maps.joined(parts, (1, 3, 2), affine_maps.common_zero_point(parts))
    assert quant == TensorQuant((0.5, 0.01, 0.01, 0.01, 2.0, 2.0), 0)


@pytest.mark.parametrize("zeros", [(0, 128), (100, 140), (0, 0, 255), (255, 0)])
def test_joined_parts_reach_as_far_as_before(zeros):
    parts = [TensorQuant((0.5 * (i + 1),), zero) for i, zero in enumerate(zeros)]
    quant = affine_maps.joined(parts, (2,) * len(parts), affine_maps.common_zero_point(parts))
    for i, part in enumerate(parts):
        for code in (0, 255):
            slack = 1e-4 * quant.scale[2 * i]
            low, high = decoded(quant, 0, 2 * i) - slack, decoded(quant, 255, 2 * i) + slack
            assert low <= decoded(part, code) <= high


def test_joined_zero_point_is_fair():
    """Between the parts, and nearer to the many."""
    parts = [TensorQuant((1.0,), 90), TensorQuant((1.0,), 150)]
    assert 90 < affine_maps.common_zero_point(parts) < 150
    several = [parts[0]] * 9 + parts[1:]
    assert affine_maps.common_zero_point(several) <= 100
