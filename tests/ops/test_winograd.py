"""Winograd's convolution: where it is taken, and that it finds every sum it is given whole."""

from __future__ import annotations

import pytest
import torch
from fastinfer._C import conv_way

from fastinfer.ops.catalog import OPS
from fastinfer.testing.cases import OUTPUTS, pack
from fastinfer.testing.cases_winograd import winograd_cases
from fastinfer.testing.compare import assert_equal
from fastinfer.types.packed import FLAG_WINOGRAD_SUMS, read_header

#: The largest sum of positive weights whose products with 255 stay below 2^25.
MOST = (2**25 - 1) // 255
REFERENCE = next(op.reference for op in OPS if op.name == "int8_conv2d")
WINOGRAD_ISAS = ("avx2", "avx512", "avx512vnni")
FLOAT = next(output for output in OUTPUTS if output.float_output and not output.residual)


def way(args):
    """Return how int8_conv2d with these arguments runs."""
    x, packed, stride, padding, dilation = args[0], args[1], *args[5:8]
    n, c, h, w = x.shape
    return conv_way(packed.data_ptr(), (n, h, w, c), tuple(stride), tuple(padding), tuple(dilation))


def test_its_cases_reach_it(isa):
    found = {way(case.build()) for case in winograd_cases() if case.op == "int8_conv2d"}
    assert ("winograd" in found) == (isa in WINOGRAD_ISAS)
    if isa == "avx512vnni":
        assert found == {"winograd"}


def weights_of_sum(total, channels):
    """Return weights [3, channels, 3, 3]: all one sign and this sum of sizes, both signs, none."""
    flat = torch.zeros(3, channels * 9, dtype=torch.int64)
    flat[0, : total // 127] = 127
    flat[0, total // 127] = total % 127
    flat[1] = -flat[0].flip(0)
    return flat.reshape(3, channels, 3, 3).to(torch.int8)


def packed_of_sum(total, channels=128):
    g = torch.Generator().manual_seed(0)
    return pack("conv2d", weights_of_sum(total, channels), g, FLOAT, 1, 0)


def test_weights_whose_sums_fit(isa):
    """The weights say so on every ISA, whether or not it has the algorithm."""
    for total, fits in ((0, True), (MOST, True), (MOST + 1, False)):
        assert read_header(packed_of_sum(total)).has(FLAG_WINOGRAD_SUMS) == fits


@pytest.mark.parametrize("value", [0, 255])
def test_largest_sums_are_whole(isa, value):
    """Those of a constant image, and of single pixels in it."""
    packed = packed_of_sum(MOST)
    x = torch.full((1, 128, 24, 24), value, dtype=torch.uint8)
    x[:, ::3, ::5, ::7] = 255 - value
    x = x.contiguous(memory_format=torch.channels_last)
    args = (x, packed, None, 3, [3, 3], [1, 1], [1, 1], [1, 1], 1, True)
    assert (way(args) == "winograd") == (isa in WINOGRAD_ISAS)
    assert_equal(torch.ops.fastinfer.int8_conv2d(*args), REFERENCE(*args))
