"""Shapes nobody listed: hypothesis draws them, the reference answers them."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastinfer.ops.catalog import OPS
from fastinfer.testing.cases import OUTPUTS, Conv, conv_case, depthwise_case, linear_case
from fastinfer.testing.compare import assert_equal

SPECS = {op.name: op for op in OPS}
QUICK = settings(max_examples=30, deadline=None, derandomize=True, database=None)

WEIGHTS = st.sampled_from(["normal", "uniform", "extreme", "zero"])
OUTPUT = st.sampled_from(OUTPUTS)


def pairs(low, high):
    return st.tuples(st.integers(low, high), st.integers(low, high))


def check(case):
    args = case.build()
    value = getattr(torch.ops.fastinfer, case.op)(*args)
    assert_equal(value, SPECS[case.op].reference(*args))


@QUICK
@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=3),
    st.integers(1, 70),
    st.integers(1, 150),
    OUTPUT,
    WEIGHTS,
)
def test_int8_linear(m, n, k, output, weights):
    check(linear_case(tuple(m), n, k, output, weights))


@st.composite
def geometry(draw):
    """Return kernel, stride, padding, dilation and a size on which they give a result."""
    kernel, stride, padding, dilation = (
        draw(pairs(1, 5)), draw(pairs(1, 3)), draw(pairs(0, 3)), draw(pairs(1, 2)),
    )  # fmt: skip
    low = [max(1, dilation[i] * (kernel[i] - 1) + 1 - 2 * padding[i]) for i in range(2)]
    size = tuple(draw(st.integers(low[i], low[i] + 9)) for i in range(2))
    return {
        "size": size,
        "kernel": kernel,
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
    }


@QUICK
@given(
    st.integers(0, 2),
    st.integers(1, 3),
    st.integers(1, 20),
    st.integers(1, 20),
    geometry(),
    OUTPUT,
    WEIGHTS,
    st.booleans(),
)
def test_int8_conv2d(n, groups, c, out, shape, output, weights, nhwc):
    conv = Conv(n=n, c=c * groups, out=out * groups, groups=groups, **shape)
    check(conv_case(conv, output, weights, nhwc))


@QUICK
@given(st.integers(0, 2), st.integers(1, 80), geometry(), OUTPUT, WEIGHTS)
def test_int8_depthwise(n, c, shape, output, weights):
    check(depthwise_case(Conv(n=n, c=c, out=c, groups=c, **shape), output, weights))
