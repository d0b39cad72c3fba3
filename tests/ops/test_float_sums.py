"""Float ops of islands against torch's own in float64, and random shapes against the reference."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from fastinfer.measure import fixed_threads
from fastinfer.ops.float_rows import LANES
from fastinfer.ops.float_sums import (
    float_attention_ref,
    float_group_norm_ref,
    float_matmul_ref,
    float_reduce_ref,
)
from fastinfer.testing.cases_islands import (
    attention_cases,
    group_norm_cases,
    matmul_cases,
    reduce_cases,
    unary_cases,
)
from fastinfer.testing.compare import assert_equal

ops = torch.ops.fastinfer
ROUNDING = 2.0**-24

TORCH = {
    "sum": lambda x, dims: x.sum(dims, keepdim=True),
    "mean": lambda x, dims: x.mean(dims, keepdim=True),
    "norm": lambda x, dims: torch.linalg.vector_norm(x, 2, dims, keepdim=True),
}


def assert_close(value, wanted, bound):
    """Compare where the exact value is a finite float32; NaN is where torch's is."""
    assert value.shape == wanted.shape
    single = wanted.float()
    assert torch.equal(value.isnan(), single.isnan())
    finite = single.isfinite() & (single.abs() < 1e38)
    error = (value.double() - wanted).abs()
    bound = bound if isinstance(bound, torch.Tensor) else torch.full_like(error, bound)
    assert bool((error <= bound.expand_as(error) * 1.001 + 1e-44)[finite].all())


@pytest.mark.parametrize("case", reduce_cases(), ids=str)
def test_reductions_are_close_to_float64(case):
    x, dims, function = case.build()
    value, exact = ops.float_reduce(x, dims, function), TORCH[function](x.double(), dims)
    # Every addition rounds by half a unit of a partial sum: those of one lane and the four that
    # join lanes; then a quotient or a root, and squares before.
    count = max(x.numel() // max(value.numel(), 1), 1)
    roundings = -(-count // LANES) + 4 + 2
    terms = x.double().square() if function == "norm" else x.double().abs()
    magnitude = TORCH["mean" if function == "mean" else "sum"](terms, dims)
    magnitude = magnitude.sqrt() if function == "norm" else magnitude
    assert_close(value, exact, roundings * ROUNDING * magnitude)


@pytest.mark.parametrize("case", group_norm_cases(), ids=str)
def test_group_norms_are_close_to_float64(case):
    x, groups, weight, bias, eps = case.build()
    value = ops.float_group_norm(x, groups, weight, bias, eps)
    if x.numel() == 0:
        assert value.shape == x.shape
        return
    parts = [None if p is None else p.double() for p in (weight, bias)]
    wanted = F.group_norm(x.double(), groups, *parts, eps)
    rows = x.double().reshape(x.shape[0], groups, -1)
    # A mean far from zero is known to its own last digits only.
    spread = rows.var(-1, correction=0).add(eps).sqrt()
    largest = float((rows.abs().amax(-1) / spread).amax())
    largest *= 1 if weight is None else max(1.0, float(weight.abs().max()))
    pixels, width = x.shape[2] * x.shape[3], x.shape[1] // groups
    roundings = 2 * (pixels / LANES + width / LANES + 8) + 14
    assert_close(value, wanted, roundings * 2 * ROUNDING * max(largest, 1.0))


@pytest.mark.parametrize("case", matmul_cases(), ids=str)
def test_products_are_close_to_float64(case):
    a, b = case.build()
    value, wanted = ops.float_matmul(a, b), a.double() @ b.double()
    # A product and a sum for every k, one after the other.
    bound = (a.shape[-1] + 1) * ROUNDING * (a.double().abs() @ b.double().abs())
    assert_close(value, wanted, bound.nan_to_num(torch.inf))


@pytest.mark.parametrize("case", attention_cases(), ids=str)
def test_attentions_are_close_to_float64(case):
    q, k, v, scale, *rest = case.build()
    mask, is_causal = (*rest, *(None, False)[len(rest) :])
    value = ops.float_attention(q, k, v, scale, mask, is_causal)
    wide = [t.double() for t in (q, k, v)]
    hidden = torch.zeros(q.shape[-2], k.shape[-2], dtype=torch.float64)
    if is_causal:
        hidden = hidden.masked_fill(torch.ones_like(hidden, dtype=torch.bool).triu(1), -torch.inf)
    if mask is not None:
        repeats = q.shape[0] // max(1, mask.shape[0]) if q.dim() == 4 else 1
        hidden = hidden + mask.double().repeat(max(1, repeats), *[1] * (mask.dim() - 1))
    wanted = F.scaled_dot_product_attention(*wide, attn_mask=hidden, scale=scale)
    if value.numel() == 0:
        assert value.shape == wanted.shape
        return
    # What scores err by, shares err by as much of themselves; then the sums of softmax and of v.
    scores = (q.double().abs() * scale) @ k.double().abs().transpose(-1, -2)
    added = hidden[hidden.isfinite()].abs()
    largest = float(scores.max()) + (float(added.max()) if added.numel() else 0)
    share = (q.shape[-1] + 4) * ROUNDING * largest
    roundings = k.shape[-2] / LANES + 14 + k.shape[-2] + 1
    bound = (2 * share + roundings * 2 * ROUNDING) * float(v.abs().max())
    assert_close(value, wanted, bound)


@pytest.mark.parametrize("case", unary_cases(), ids=str)
def test_functions_are_close_to_float64(case):
    x, function = case.build()
    value = ops.float_unary(x, function)
    x = x.double()
    products = {"silu": F.silu, "gelu": F.gelu, "gelu_tanh": partial(F.gelu, approximate="tanh")}
    wanted = products[function](x) if function in products else getattr(torch, function)(x)
    finite = wanted.isfinite() & (wanted.abs() < 3e38)
    # Units in the last place; of sums with 1, of 1. exp(-x) overflows where sigmoid is 0.
    unit = 2 * ROUNDING * (wanted.abs() if function in ("sqrt", "exp") else wanted.abs() + 1e-3)
    if function in products:
        unit = unit + 2 * ROUNDING * x.abs() * 1e-3
    if function == "gelu":  # a fit within 2e-7, and exp(-x^2 / 2), of whose exponent four roundings
        unit = unit + ROUNDING * (1 + x * x / 2) * wanted.abs().nan_to_num()
    error = (value.double() - wanted).abs()
    assert bool((error <= 4 * unit + 1e-37)[finite].all()), float((error / unit)[finite].max())
    if function not in products:  # -inf times 0 there
        assert torch.equal(value.isnan(), wanted.isnan())


@settings(max_examples=40, deadline=None)
@given(
    shape=st.lists(st.integers(1, 20), min_size=2, max_size=5),
    seed=st.integers(0, 99),
    function=st.sampled_from(sorted(TORCH)),
    threads=st.integers(1, 3),
    data=st.data(),
)
def test_random_reductions(shape, seed, function, threads, data):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    order = [0, 2, 3, 1] if len(shape) == 4 else list(range(len(shape)))
    first = data.draw(st.integers(0, len(shape) - 1))
    last = data.draw(st.integers(first, len(shape) - 1))
    dims = order[first : last + 1]
    with fixed_threads(threads):
        assert_equal(ops.float_reduce(x, dims, function), float_reduce_ref(x, dims, function))


@settings(max_examples=30, deadline=None)
@given(n=st.integers(0, 3), width=st.integers(1, 20), groups=st.integers(1, 9), h=st.integers(1, 9),
       w=st.integers(1, 9), threads=st.integers(1, 3), seed=st.integers(0, 99))  # fmt: skip
def test_random_group_norms(n, width, groups, h, w, threads, seed):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, width * groups, h, w, generator=g)
    weight = torch.randn(width * groups, generator=g)
    args = (x, groups, weight, None, 1e-3)
    with fixed_threads(threads):
        assert_equal(ops.float_group_norm(*args), float_group_norm_ref(*args))


@settings(max_examples=40, deadline=None)
@given(batch=st.integers(1, 3), rows=st.integers(1, 60), k=st.integers(0, 40),
       columns=st.integers(1, 150), turned=st.booleans(), threads=st.integers(1, 3),
       seed=st.integers(0, 99))  # fmt: skip
def test_random_products(batch, rows, k, columns, turned, threads, seed):
    g = torch.Generator().manual_seed(seed)
    a = torch.randn(batch, rows, k, generator=g)
    b = torch.randn(batch, columns, k, generator=g).transpose(1, 2) if turned else (
        torch.randn(batch, k, columns, generator=g))  # fmt: skip
    with fixed_threads(threads):
        assert_equal(ops.float_matmul(a, b), float_matmul_ref(a, b))


@settings(max_examples=25, deadline=None)
@given(batch=st.integers(1, 3), queries=st.integers(1, 60), keys=st.integers(1, 90),
       width=st.integers(1, 20), out=st.integers(1, 70), threads=st.integers(1, 3))  # fmt: skip
def test_random_attentions(batch, queries, keys, width, out, threads):
    g = torch.Generator().manual_seed(queries * keys)
    sizes = ((queries, width), (keys, width), (keys, out))
    q, k, v = (torch.randn(batch, *size, generator=g) for size in sizes)
    with fixed_threads(threads):
        assert_equal(ops.float_attention(q, k, v, 0.3), float_attention_ref(q, k, v, 0.3))
