"""Winograd's convolution: where it is taken, and that it finds every sum it is given whole."""

from __future__ import annotations

import pytest
import torch
from fastinfer._C import conv_way

from fastinfer.nn.int8_conv2d import ConvGeometry, Int8Conv2d
from fastinfer.nn.packed_module import unpack
from fastinfer.ops.catalog import OPS
from fastinfer.testing.case import generator, random_uint8
from fastinfer.testing.cases import OUTPUTS, pack, random_weight
from fastinfer.testing.cases_winograd import winograd_cases
from fastinfer.testing.compare import assert_equal
from fastinfer.types.packed import FLAG_STRIDED, FLAG_WINOGRAD_SUMS, read_header

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


def test_a_step_decides_how_a_weight_is_packed_and_nothing_else(isa):
    """Winograd's words would be slower where windows are multiplied; a module tells its step."""
    g = generator("strided")
    weight = random_weight(g, "normal", 64, 128, 3, 3)
    x = random_uint8(g, 1, 128, 9, 9).contiguous(memory_format=torch.channels_last)
    folded = unpack(pack("conv2d", weight, g, OUTPUTS[0], 1, 117))
    assert not folded.strided
    layer = Int8Conv2d(folded, ConvGeometry((3, 3), (2, 2), (1, 1)))
    plain = Int8Conv2d(folded, ConvGeometry((3, 3), (1, 1), (1, 1)))
    for module, strided in ((layer, True), (plain, False)):
        assert module.folded().strided == strided
        packed, header = module.packed.clone(), read_header(module.packed)
        assert header.has(FLAG_STRIDED) == strided
        module.repack()
        assert_equal(module.packed, packed)
    forms = [read_header(module.packed).form for module in (layer, plain)]
    assert (forms[0] != forms[1]) == (isa in ("avx2", "avx512"))
    arguments = (None, 64, [3, 3], [2, 2], [1, 1], [1, 1], 1, False)
    assert_equal(layer(x), REFERENCE(x, layer.packed, *arguments))
    assert_equal(layer(x), torch.ops.fastinfer.int8_conv2d(x, plain.packed, *arguments))
