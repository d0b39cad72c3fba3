"""Sparse float ops against float64, over random sizes, and with parts that no weight has."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastinfer import runtime
from fastinfer.ops.sparse_float import SPARSE_FLOAT_CONV2D, SPARSE_FLOAT_LINEAR
from fastinfer.testing.cases_sparse_float import sparse_float_cases, sparse_weight
from fastinfer.testing.compare import assert_equal, float32_bound
from fastinfer.types.sparse_float import SparseFloatWeight

ops = torch.ops.fastinfer
INF = float("inf")


@pytest.mark.parametrize("case", sparse_float_cases(), ids=str)
def test_close_to_float64(case):
    x, values, places, starts, bias, residual, shape, *rest = case.build()
    groups = rest[3] if len(rest) > 2 else 1
    low, high = rest[-2:]
    weight = SparseFloatWeight(values, places, starts, tuple(shape), groups)
    parts = (x.double(), weight.dense().double(), None if bias is None else bias.double())
    if case.op == "sparse_float_linear":
        wanted = torch.nn.functional.linear(*parts)
    else:
        wanted = torch.nn.functional.conv2d(*parts, *rest[:4])
    wanted = wanted if residual is None else wanted + residual.double()
    value = getattr(ops, case.op)(*case.build())
    if value.numel() and float(wanted.abs().max()) < 1e30:  # finite in float32
        bound = float32_bound(weight.inputs, x, weight.dense())
        for added in (bias, residual):  # and the rounding of what was added to it
            bound += 0.0 if added is None else float32_bound(0, added, torch.ones(1))
        assert float((value.double() - wanted.clamp(low, high)).abs().max()) <= bound


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(0, 3), channels=st.integers(1, 30), outputs=st.integers(1, 20),
    groups=st.integers(1, 3), height=st.integers(1, 12), width=st.integers(1, 40),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    density=st.sampled_from([0.0, 0.1, 0.5, 1.0]), seed=st.integers(0, 99),
)  # fmt: skip
def test_random_convolutions(
    batch,
    channels,
    outputs,
    groups,
    height,
    width,
    kernel,
    stride,
    padding,
    dilation,
    density,
    seed,
):
    spans = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    height, width = max(height, spans[0] - 2 * padding[0]), max(width, spans[1] - 2 * padding[1])
    g = torch.Generator().manual_seed(seed)
    dense = sparse_weight(g, density, outputs * groups, channels, *kernel)
    w = SparseFloatWeight.of(dense, groups)
    x = torch.randn(batch, channels * groups, height, width, generator=g)
    geometry = [list(pair) for pair in (stride, padding, dilation)]
    args = (x, w.values, w.places, w.starts, None, None, list(dense.shape), *geometry, groups)
    found = []
    before = runtime.isa()
    try:
        for isa in runtime.supported_isas():
            runtime.set_isa(isa)
            found.append(ops.sparse_float_conv2d(*args, -INF, INF))
    finally:
        runtime.set_isa(before)
    wanted = torch.nn.functional.conv2d(x, dense, None, *geometry, groups)
    assert found[0].shape == wanted.shape
    if wanted.numel():
        bound = float32_bound(w.inputs, x, dense)
        assert float((found[0] - wanted).abs().max()) <= bound
    for value in found[1:]:
        assert_equal(value, found[0])


def test_rows_do_not_depend_on_their_batch():
    w = SparseFloatWeight.of(sparse_weight(torch.Generator().manual_seed(0), 0.3, 70, 300))
    x = torch.randn(200, 300, generator=torch.Generator().manual_seed(1))
    rest = (w.values, w.places, w.starts, None, None, [70, 300], -INF, INF)
    whole = ops.sparse_float_linear(x, *rest)
    for rows in (slice(0, 1), slice(3, 20), slice(7, 106)):
        assert_equal(ops.sparse_float_linear(x[rows], *rest), whole[rows])


def test_no_reading_beyond_the_parts():
    """Starts and places that no weight has are bounded by the kernels: no crash, any answer."""
    x = torch.randn(20, 140)
    values, places = torch.randn(50), torch.full((50,), 255, dtype=torch.uint8)
    starts = torch.tensor([-9, 2**31 - 1, -(2**31), 40, 2**31 - 1, 3, 70], dtype=torch.int32)
    y = ops.sparse_float_linear(x, values, places, starts, None, None, [3, 140], -INF, INF)
    assert y.shape == (20, 3)


def linear(**changed):
    w = SparseFloatWeight.of(sparse_weight(torch.Generator().manual_seed(0), 0.5, 6, 20))
    parts = {
        "x": torch.zeros(2, 20), "values": w.values, "places": w.places, "starts": w.starts,
        "bias": torch.zeros(6), "residual": None, "weight_shape": [6, 20],
        "clamp_min": -INF, "clamp_max": INF,
    }  # fmt: skip
    return "sparse_float_linear", parts | changed


def conv(**changed):
    dense = sparse_weight(torch.Generator().manual_seed(0), 0.5, 6, 4, 3, 3)
    w = SparseFloatWeight.of(dense, 2)
    parts = {
        "x": torch.zeros(2, 8, 5, 5), "values": w.values, "places": w.places, "starts": w.starts,
        "bias": None, "residual": None, "weight_shape": [6, 4, 3, 3], "stride": [1, 1],
        "padding": [1, 1], "dilation": [1, 1], "groups": 2, "clamp_min": -INF, "clamp_max": INF,
    }  # fmt: skip
    return "sparse_float_conv2d", parts | changed


#: label -> (call, words of the message besides the op's name, the reference refuses too).
BAD = {
    "x dtype": (linear(x=torch.zeros(2, 20).double()), ["x", "loat"], True),
    "features": (linear(x=torch.zeros(2, 21)), ["[*, 20]", "[2, 21]"], True),
    "scalar": (linear(x=torch.zeros(())), ["[*, 20]", "[]"], True),
    "bias": (linear(bias=torch.zeros(5)), ["bias", "[6]", "[5]"], True),
    "residual": (linear(residual=torch.zeros(2, 5)), ["residual", "[2, 6]", "[2, 5]"], True),
    "starts": (linear(starts=torch.zeros(5, dtype=torch.int32)), ["starts", "[7]"], True),
    "places": (linear(places=torch.zeros(3, dtype=torch.uint8)), ["places"], True),
    "values dtype": (linear(values=torch.zeros(3, dtype=torch.int32)), ["values"], True),
    "shape": (linear(weight_shape=[6]), ["weight_shape [N, K]"], False),
    "channels": (conv(x=torch.zeros(2, 7, 5, 5)), ["[N, 8, H, W]", "[2, 7, 5, 5]"], True),
    "dims": (conv(x=torch.zeros(8, 5, 5)), ["[N, 8, H, W]", "[8, 5, 5]"], True),
    "groups": (conv(groups=4), ["groups", "6", "4"], False),
    "stride": (conv(stride=[0, 1]), ["stride", "[0, 1]"], False),
    "padding": (conv(padding=[-1, 0]), ["padding", "[-1, 0]"], False),
    "kernel": (conv(x=torch.zeros(1, 8, 1, 1), padding=[0, 0]), ["kernel", "[3, 3]"], False),
    "conv residual": (conv(residual=torch.zeros(2, 6, 5, 4)), ["residual", "[2, 6, 5, 5]"], True),
}
SPECS = {spec.name: spec for spec in (SPARSE_FLOAT_LINEAR, SPARSE_FLOAT_CONV2D)}


@pytest.mark.parametrize("label", BAD)
def test_bad_input(label):
    (op, parts), words, both = BAD[label]
    calls = [getattr(ops, op)] + ([SPECS[op].reference] if both else [])
    for call in calls:
        with pytest.raises((RuntimeError, ValueError)) as error:
            call(*parts.values())
        text = str(error.value)
        assert all(word in text for word in words), text
        assert op in text or "sparse float weight" in text
