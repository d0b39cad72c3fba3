"""Float steps against torch's own, most in float64, and the exponential's whole range."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastinfer.measure import fixed_threads
from fastinfer.ops.float_rows import (
    LANES,
    float_global_avg_pool2d_ref,
    float_layer_norm_ref,
    float_softmax_ref,
)
from fastinfer.ops.float_upsample import float_upsample2d_ref
from fastinfer.testing.cases_rows import float_upsample_cases, mean_cases, row_cases
from fastinfer.testing.compare import assert_equal, row_bound

ops = torch.ops.fastinfer


@pytest.mark.parametrize("case", row_cases(), ids=str)
def test_close_to_float64(case):
    args = case.build()
    value, x = getattr(ops, case.op)(*args), args[0].double()
    if case.op == "float_softmax":
        dim, wanted = args[1], torch.softmax(x, args[1])
        largest = torch.ones(())
    else:
        _, weight, bias, eps, dim = args
        parts = [None if p is None else p.double() for p in (weight, bias)]
        rows = x.movedim(dim, -1)
        wanted = torch.nn.functional.layer_norm(rows, rows.shape[-1:], *parts, eps).movedim(-1, dim)
        largest = torch.ones(())
        if x.numel():
            spread = rows.var(-1, correction=0).add(eps).sqrt()
            # A mean far from zero is known to its own last digits only.
            largest = (rows.abs().amax(-1) / spread).amax()
            largest = largest * (1 if weight is None else weight.abs().max())
    error = (value.double() - wanted).abs()
    assert error.numel() == 0 or float(error.max()) <= row_bound(x.shape[dim], float(largest))


@pytest.mark.parametrize("case", mean_cases(), ids=str)
def test_means_are_close_to_float64(case):
    (x,) = case.build()
    value, wanted = ops.float_global_avg_pool2d(x), x.double().mean((2, 3), keepdim=True)
    assert value.shape == wanted.shape
    assert torch.equal(value.isfinite(), wanted.float().isfinite())
    finite = wanted.isfinite()
    # Every addition rounds by half a unit of a partial sum, and each partial is below the sum of
    # magnitudes: those of one lane and the four that join lanes, then the quotient.
    additions = -(-x.shape[2] * x.shape[3] // LANES) + 4 + 1
    bound = additions * 2.0**-24 * x.double().abs().mean((2, 3), keepdim=True)
    assert bool(((value.double() - wanted).abs() <= bound * 1.001)[finite].all())


@settings(max_examples=40, deadline=None)
@given(n=st.integers(0, 3), c=st.integers(1, 140), h=st.integers(1, 9), w=st.integers(1, 9),
       threads=st.integers(1, 3), nhwc=st.booleans(), seed=st.integers(0, 99))  # fmt: skip
def test_random_means(n, c, h, w, threads, nhwc, seed):
    x = torch.randn(n, c, h, w, generator=torch.Generator().manual_seed(seed))
    if nhwc:
        x = x.contiguous(memory_format=torch.channels_last)
    with fixed_threads(threads):
        assert_equal(ops.float_global_avg_pool2d(x), float_global_avg_pool2d_ref(x))


@pytest.mark.parametrize("case", float_upsample_cases(), ids=str)
def test_upsamples_are_close_to_torch(case):
    x, like, size, factors, align_corners = case.build()
    value = ops.float_upsample2d(x, like, size, factors, align_corners)
    if x.shape[1] == 0:  # torch's refuses
        return
    size = list(like.shape[2:]) if like is not None else size
    wanted = torch.ops.aten.upsample_bilinear2d.vec(x, size or None, align_corners, factors or None)
    assert value.shape == wanted.shape and value.is_contiguous()
    assert torch.equal(value.isnan(), wanted.isnan())
    if not x.isfinite().all():
        return
    # Either rounds 1 - w, two products and their sum along a row, and as many between rows. Places
    # in a row of n pixels, and with them weights, are rounded twice, by n units of 2^-24 at most;
    # what they weigh differs by twice the largest pixel.
    roundings = 2 * 6 + 2 * 2 * (x.shape[2] + x.shape[3])
    bound = roundings * 2.0**-24 * float(x.abs().max()) if x.numel() else 0.0
    assert value.numel() == 0 or float((value - wanted).abs().max()) <= bound


@settings(max_examples=40, deadline=None)
@given(n=st.integers(0, 3), c=st.integers(1, 40), sizes=st.tuples(*[st.integers(1, 20)] * 4),
       align_corners=st.booleans(), threads=st.integers(1, 3), nhwc=st.booleans(),
       seed=st.integers(0, 99))  # fmt: skip
def test_random_upsamples(n, c, sizes, align_corners, threads, nhwc, seed):
    x = torch.randn(n, c, *sizes[:2], generator=torch.Generator().manual_seed(seed))
    if nhwc:
        x = x.contiguous(memory_format=torch.channels_last)
    args = (x, None, sizes[2:], [], align_corners)
    with fixed_threads(threads):
        assert_equal(ops.float_upsample2d(*args), float_upsample2d_ref(*args))


def test_rows_without_a_number_are_nan():
    inf, nan = float("inf"), float("nan")
    x = torch.tensor([[1.0, nan, 2.0], [inf, 0.0, 1.0], [-inf, -inf, -inf], [0.0, 1.0, 2.0]])
    y = ops.float_softmax(x, 1)
    assert y[:3].isnan().all() and y[3].isfinite().all()
    assert ops.float_layer_norm(x, None, None, 1e-5, 1)[:3].isnan().all()


shapes = st.lists(st.integers(0, 5), max_size=2)


@settings(max_examples=40, deadline=None)
@given(shape=shapes, n=st.integers(1, 90), scale=st.sampled_from([1e-20, 1.0, 50.0, 1e20]),
       seed=st.integers(0, 99))  # fmt: skip
def test_random_rows(shape, n, scale, seed):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(*shape, n, generator=g) * scale
    weight = torch.randn(n, generator=g)
    args = (x, weight, None, 1e-5, len(shape))
    assert_equal(ops.float_layer_norm(*args), float_layer_norm_ref(*args))
    assert_equal(ops.float_softmax(x, len(shape)), float_softmax_ref(x, len(shape)))
