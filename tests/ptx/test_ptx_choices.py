"""What launchers choose for a shape: pure functions, asked without a GPU."""

from __future__ import annotations

from ctypes import byref, c_int64
from itertools import product

import pytest
from host.between import PoolAxis, PoolCall
from host.launchers import GemmCall, Windows

from fastinfer.ops.int8_pool import pooled_size


@pytest.fixture(scope="module")
def launchers(built):
    return built.launchers


def test_pooled_size(launchers):
    for size, kernel, stride, padding, dilation in product(
        range(1, 12), (1, 2, 3, 5), (1, 2, 3), (0, 1, 2), (1, 2)
    ):
        for ceil_mode in (False, True):
            arguments = (size, kernel, stride, padding, dilation, ceil_mode)
            assert launchers.library.ptx_pooled_size(*arguments) == pooled_size(*arguments)


def splits(launchers, images, channels, size, out=(1, 1), multiprocessors=132):
    call = PoolCall(
        0, 0, images, channels, *(PoolAxis(s, o) for s, o in zip(size, out, strict=True))
    )
    return launchers.library.ptx_choose_splits(byref(call), multiprocessors)


def test_shares_of_an_average(launchers):
    assert splits(launchers, 32, 512, (4, 4)) == 0  # a thread sums 16 pixels
    assert splits(launchers, 32, 512, (9, 8), (2, 2)) == 0
    assert splits(launchers, 32, 2048, (7, 7)) == 1
    assert splits(launchers, 1024, 64, (112, 112)) == 1  # enough images
    assert splits(launchers, 1, 3, (20, 20)) == 1  # not worth a second launch
    for images, channels, size in product((1, 3, 32), (3, 32, 100, 960), (7, 28, 112, 300)):
        count = splits(launchers, images, channels, (size, size))
        assert 1 <= count <= 64
        if count > 1:
            assert size * size * min(channels, 256) / count >= 1 << 16
            assert images * -(-channels // 256) * (count - 1) < 2 * 132


def test_shares_of_a_row(launchers):
    def shares(rows, n):
        return launchers.library.ptx_range_splits(c_int64(rows), c_int64(n), 132)

    assert shares(1, 10) == 1
    assert shares(1, 1 << 20) == 64
    assert shares(1, 1 << 40) == 528  # four blocks a multiprocessor
    assert shares(32, 1 << 20) == 17
    assert shares(10000, 1 << 20) == 1


def first_call(channels=3, size=(224, 224), n=64, kernel=(7, 7), stride=(2, 2), images=32, **other):
    out = [(size[i] + 2 * (kernel[i] // 2) - kernel[i]) // stride[i] + 1 for i in range(2)]
    windows = Windows(*size, channels, *out, *kernel, *stride, *(k // 2 for k in kernel), 1, 1)
    call = GemmCall(m=images * out[0] * out[1], n=n, n_padded=-(-n // 32) * 32, run=channels,
                    groups=1, windows=windows)  # fmt: skip
    for name, value in other.items():
        setattr(call if name == "groups" else call.windows, name, value)
    return call


@pytest.mark.parametrize("images", [1, 3, 32, 1000])
@pytest.mark.parametrize("size", [(224, 224), (17, 1300), (9, 5), (300, 40)], ids=str)
def test_tiles_of_a_first_layer(launchers, size, images):
    for kernel, stride in (((7, 7), (2, 2)), ((3, 3), (2, 2)), ((4, 4), (4, 4)), ((3, 2), (1, 1))):
        call = first_call(size=size, kernel=kernel, stride=stride, images=images)
        f = launchers.first_conv(call, 132)
        assert f["in_rows"] * f["pitch"] * 4 <= 48 * 1024
        assert f["columns"] % 16 == 0 and f["taps"] == kernel[0]
        assert f["tiles"] == images * f["tiles_y"] * f["tiles_x"]
        assert f["tiles_y"] * f["rows"] >= call.windows.out_height > (f["tiles_y"] - 1) * f["rows"]
        assert f["tiles_x"] * f["columns"] >= call.windows.out_width
        assert 1 <= f["blocks"] <= min(f["tiles"], 2 * 132)
        assert f["in_rows"] == (f["rows"] - 1) * stride[0] + kernel[0]
        # Of the last window of a row eight words are read.
        assert f["pitch"] == (f["columns"] - 1) * stride[1] + 8


def test_small_batches_have_small_tiles(launchers):
    rows = [launchers.first_conv(first_call(images=n), 132)["rows"] for n in (1, 32, 256)]
    assert rows[0] == 1 and min(rows[1:]) >= 4


def test_what_is_no_first_layer(launchers):
    for call in (
        first_call(channels=5),
        first_call(kernel=(5, 5)),
        first_call(kernel=(3, 5)),
        first_call(kernel=(7, 9)),
        first_call(kernel=(3, 1)),
        first_call(stride=(2, 5)),
        first_call(groups=3),
        first_call(dilation_w=2),
    ):
        assert launchers.first_conv(call, 132) is None
