"""First layers whose windows lie column by column: which weights, and how they run."""

from __future__ import annotations

import ctypes
import mmap

import pytest
import torch
from fastinfer._C import conv_way

from fastinfer.nn.packed_module import unpack
from fastinfer.testing.cases import OUTPUTS, pack, random_weight
from fastinfer.testing.cases_columns import column_cases
from fastinfer.testing.compare import assert_equal
from fastinfer.types.packed import FLAG_COLUMNS, read_header

ISAS = ("scalar", "avx512vnni", "amx")
CONVS = [case for case in column_cases() if case.op == "int8_conv2d"]


def packed_of(channels, out, kernel, groups=1):
    g = torch.Generator().manual_seed(0)
    weight = random_weight(g, "normal", out, channels, *kernel)
    return pack("conv2d", weight, g, OUTPUTS[0], groups, 0), weight


def test_its_cases_reach_it(isa):
    ways = set()
    for case in CONVS:
        x, packed, _, _, _, stride, padding, dilation, *_ = case.build()
        assert read_header(packed).has(FLAG_COLUMNS) == (isa in ISAS), case.label
        n, c, h, w = x.shape
        geometry = (tuple(stride), tuple(padding), tuple(dilation))
        ways.add(conv_way(packed.data_ptr(), (n, h, w, c), *geometry))
    assert ways == ({"direct", "windows"} if isa in ISAS else {"windows"})


@pytest.mark.parametrize(
    ("channels", "out", "kernel", "takes"),
    [
        (3, 64, (7, 7), True),
        (3, 64, (3, 3), True),
        (3, 16, (3, 3), False),  # few products are spared
        (4, 64, (7, 7), False),  # rows fill whole quads
        (3, 64, (1, 7), False),  # there is one row
        (3, 64, (11, 11), False),  # more lines than vectors take
        (17, 128, (3, 3), False),  # more channels
        (130, 256, (3, 3), False),
    ],
)
def test_which_weights(isa, channels, out, kernel, takes):
    packed, weight = packed_of(channels, out, kernel)
    assert read_header(packed).has(FLAG_COLUMNS) == (takes and isa in ISAS)
    assert_equal(unpack(packed).weight, weight)


@pytest.mark.parametrize("case", [c for c in CONVS if c.build()[0].shape[0] == 1], ids=str)
def test_reads_nothing_past_the_image(isa, case):
    """The image ends where a page does that nobody may read: a read past it ends the process."""
    x, *others = case.build()
    image = before_a_page(x.permute(0, 2, 3, 1).contiguous()).permute(0, 3, 1, 2)
    function = torch.ops.fastinfer.int8_conv2d
    assert_equal(function(image, *others), function(x, *others))


def before_a_page(x):
    """Return a copy of a contiguous uint8 tensor that ends at an unreadable page."""
    size = -(-x.numel() // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(-1, size + mmap.PAGESIZE)
    libc = ctypes.CDLL(None, use_errno=True)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    assert libc.mprotect(ctypes.c_void_p(address + size), mmap.PAGESIZE, 0) == 0
    whole = torch.frombuffer(memory, dtype=torch.uint8, count=size)
    return whole[size - x.numel() :].view(x.shape).copy_(x)


def test_not_those_of_groups(isa):
    packed, _ = packed_of(3, 128, (7, 7), groups=2)
    assert not read_header(packed).has(FLAG_COLUMNS)
