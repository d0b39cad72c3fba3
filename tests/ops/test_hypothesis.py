"""Shapes nobody listed: hypothesis draws them, the reference answers them."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastinfer.ops.catalog import OPS
from fastinfer.testing.cases import (
    OUTPUTS,
    Conv,
    conv_case,
    depthwise_case,
    generator,
    linear_case,
)
from fastinfer.testing.cases_between import (
    Pool,
    avg_case,
    cat_case,
    image,
    max_case,
    pair_cases,
    upsample_case,
)
from fastinfer.testing.compare import assert_equal

SPECS = {op.name: op for op in OPS}
QUICK = settings(max_examples=30, deadline=None, derandomize=True, database=None)

WEIGHTS = st.sampled_from(["normal", "uniform", "extreme", "zero", "sparse", "shared"])
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
@given(
    st.integers(0, 2), st.integers(2, 14), st.sampled_from([4, 8]), geometry(), OUTPUT, WEIGHTS,
    st.booleans(),
)  # fmt: skip
def test_groups_of_few_channels(n, groups, c, shape, output, weights, nhwc):
    conv = Conv(n=n, c=c * groups, out=c * groups, groups=groups, **shape)
    check(conv_case(conv, output, weights, nhwc))


@QUICK
@given(
    st.integers(1, 2),
    st.integers(16, 34).map(lambda quads: 4 * quads),
    st.tuples(st.integers(3, 30), st.integers(3, 30)),
    st.integers(1, 70),
    st.tuples(st.integers(0, 4), st.integers(0, 4)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    OUTPUT,
    st.sampled_from(["normal", "uniform", "extreme"]),
)
def test_three_by_three(n, c, size, out, padding, dilation, output, weights):
    """Images and channels as Winograd's algorithm takes them, and just not."""
    least = [2 * dilation[i] + 1 - 2 * padding[i] for i in range(2)]
    size = tuple(max(size[i], least[i]) for i in range(2))
    check(conv_case(Conv(n, c, size, out, padding=padding, dilation=dilation), output, weights))


@QUICK
@given(st.integers(0, 2), st.integers(1, 80), geometry(), OUTPUT, WEIGHTS)
def test_int8_depthwise(n, c, shape, output, weights):
    check(depthwise_case(Conv(n=n, c=c, out=c, groups=c, **shape), output, weights))


LAYOUT = st.sampled_from(["nhwc", "nchw", "strided"])


@QUICK
@given(st.lists(st.integers(0, 3) | st.integers(1, 130), min_size=4, max_size=4), LAYOUT, LAYOUT,
       st.booleans())  # fmt: skip
def test_pairs(shape, x_layout, y_layout, repeats):
    n, c, h, w = shape[0] % 4, shape[1], shape[2] % 12, shape[3] % 12
    for case in pair_cases((n, c, h, w), (x_layout, y_layout), (n, c, 1, 1) if repeats else None):
        check(case)


@QUICK
@given(st.integers(0, 3), st.lists(st.integers(0, 140), min_size=1, max_size=4), LAYOUT)
def test_int8_cat(dim, sizes, layout):
    shapes = [[2, 6, 5, 3] for _ in sizes]
    for shape, size in zip(shapes, sizes, strict=True):
        shape[dim] = size
    xs = [image(generator(str(shape)), tuple(shape), layout) for shape in shapes]
    check(cat_case("drawn", xs, dim, [(0.6, 17), (1.0, 101)]))


@QUICK
@given(st.integers(0, 2), st.integers(1, 140), geometry(), st.booleans(), st.booleans(), LAYOUT)
def test_pools(n, c, shape, ceil_mode, include_pad, layout):
    kernel = shape["kernel"]
    padding = tuple(min(shape["padding"][i], kernel[i] // 2) for i in range(2))
    # A dilated window may lie in the padding alone: torch has no number for it.
    dilation = shape["dilation"] if padding == (0, 0) else (1, 1)
    size = tuple(max(shape["size"][i], dilation[i] * (kernel[i] - 1) + 1) for i in range(2))
    pool = Pool(n, c, size, kernel, shape["stride"], padding, dilation, ceil_mode)
    check(max_case(pool, layout))
    if dilation == (1, 1):
        check(avg_case(pool, include_pad, layout))


@QUICK
@given(st.integers(0, 2), st.integers(1, 140), st.tuples(*[st.integers(1, 12)] * 4), st.booleans(),
       st.booleans(), LAYOUT)  # fmt: skip
def test_upsamples(n, c, sizes, bilinear, align_corners, layout):
    label = f"{n}x{c}_{sizes}"
    x = image(generator(label), (n, c, *sizes[:2]), layout)
    corners = align_corners and bilinear
    check(upsample_case(x, label, size=sizes[2:], bilinear=bilinear, align_corners=corners))
    factors = (sizes[2] / sizes[0] + 0.01, sizes[3] / sizes[1] + 0.013)
    check(upsample_case(x, label, factors=factors, bilinear=bilinear))
