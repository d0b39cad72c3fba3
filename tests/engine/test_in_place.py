"""Results in the memory of an operand that nobody reads again: the bits, and what is spared."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import ops

from fastinfer import runtime
from fastinfer.ops.int8_region import int8_region_ref
from fastinfer.testing.cases_views import ImageProgram
from fastinfer.testing.compare import assert_equal

PIXELS = 6 * 5


def images(p, outputs, channels=64):
    """Return how many images the arena holds; the answers are the reference's."""
    arguments = p.arguments("in place", outputs, 1, 6, 5)
    with runtime.recording() as calls:
        answers = ops.fastinfer.int8_region(*arguments)
    for got, wanted in zip(answers, int8_region_ref(*arguments), strict=True):
        assert_equal(got, wanted)
    (call,) = calls
    assert call.arena_bytes == call.arena_lower_bound
    assert call.arena_bytes % (channels * PIXELS) == 0
    return call.arena_bytes // (channels * PIXELS)


def two_images():
    p = ImageProgram(8)
    return p, p.conv(0, 64), p.conv(0, 64)


@pytest.mark.parametrize("kernel", [1, 3])
def test_residual(kernel):
    p, x, residual = two_images()
    for _ in range(3):
        residual = p.conv(x, 64, kernel, residual)
    assert images(p, [p.mean(residual)]) == 2


@pytest.mark.parametrize("kind", ["add", "mul"])
def test_sums_and_products(kind):
    for of_itself in (False, True):
        p, x, y = two_images()
        z = getattr(p, kind)(x, x if of_itself else y)
        assert images(p, [p.mean(z)]) == 2
    p, x, y = two_images()
    z = getattr(p, kind)(x, y)
    assert images(p, [p.mean(z), p.mean(x)]) == 2  # y's memory
    p, x, y = two_images()
    z = getattr(p, kind)(x, y)
    assert images(p, [p.mean(z), p.mean(x), p.mean(y)]) == 3


def test_product_with_a_pixel():
    p = ImageProgram(8)
    x = p.conv(0, 64)
    pixel = p.conv(p.mean(x), 64)
    bytes_beside = 2 * 64
    arguments = p.arguments("pixel", [p.pool(p.mul(x, pixel), "max")], 1, 6, 5)
    with runtime.recording() as calls:
        (got,) = ops.fastinfer.int8_region(*arguments)
    assert_equal(got, int8_region_ref(*arguments)[0])
    assert calls[0].arena_bytes == 64 * PIXELS + bytes_beside


def test_lookups():
    p = ImageProgram(8)
    x = p.conv(0, 64)
    for _ in range(3):
        x = p.lookup(x)
    assert images(p, [p.mean(x)]) == 1


def test_operands_that_are_read_again():
    p, x, residual = two_images()
    y = p.conv(x, 64, 1, residual)
    assert images(p, [p.mean(y), p.mean(residual)]) == 3
    p, x, residual = two_images()
    y = p.conv(x, 64, 1, residual)
    assert images(p, [p.mean(y), p.mean(p.slice(residual, 3, 40))]) == 3
    p, x, residual = two_images()
    part = p.slice(residual, 3, 40)
    y = p.conv(x, 64, 1, residual)
    assert images(p, [p.mean(y), p.mean(part)]) == 3
    p, x, _ = two_images()
    assert images(p, [p.mean(p.conv(x, 64, 3, x))]) == 2  # windows are read after results are made


def test_the_callers_memory():
    p = ImageProgram(64)
    assert images(p, [p.mean(p.conv(p.conv(0, 64), 64, 1, 0))]) == 2  # an input stays
    p, x, residual = two_images()
    assert images(p, [p.conv(x, 64, 1, residual)]) == 2  # a result is where the caller wants it
    p, x, residual = two_images()
    y = p.conv(x, 64, 1, residual)
    assert images(p, [residual, p.mean(y)]) == 2


def test_rows_that_end_within_a_line_of_cache():
    """Their stores are under masks, which later loads of residuals would wait for."""
    p = ImageProgram(8)
    x, residual = p.conv(0, 32), p.conv(0, 32)
    for _ in range(3):
        residual = p.conv(x, 32, 1, residual)
    assert images(p, [p.mean(residual)], 32) == 3


WIDTHS = (64, 64, 64, 17, 128)


@st.composite
def programs(draw):
    """Steps on images of few widths, so that most results have the size of operands."""
    p = ImageProgram(draw(st.sampled_from(WIDTHS)))
    for _ in range(draw(st.integers(3, 12))):
        x = draw(st.integers(0, len(p.channels) - 1))
        same = [i for i, c in enumerate(p.channels) if c == p.channels[x]]
        y = draw(st.sampled_from(same))
        kind = draw(st.sampled_from(("conv", "residual", "residual", "add", "mul", "other")))
        if kind == "conv":
            p.conv(x, draw(st.sampled_from(WIDTHS)), draw(st.sampled_from((1, 3))))
        elif kind == "residual":
            source = draw(st.integers(0, len(p.channels) - 1))
            p.conv(source, p.channels[y], draw(st.sampled_from((1, 3))), y)
        elif kind == "add":
            p.add(x, y)
        elif kind == "mul":
            p.mul(x, y)
        else:
            other = draw(st.integers(0, 2))
            if other == 0:
                p.lookup(x)
            elif other == 1:
                p.slice(x, 1, p.channels[x])
            else:
                p.cat([x, y])
    count = len(p.channels)
    outputs = draw(st.lists(st.integers(1, count - 1), min_size=1, max_size=3, unique=True))
    return p, outputs, draw(st.integers(1, 2)), draw(st.integers(1, 7)), draw(st.integers(1, 7))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(programs())
def test_any_program(drawn):
    program, outputs, batch, height, width = drawn
    arguments = program.arguments("any", outputs, batch, height, width)
    wanted = int8_region_ref(*arguments)
    for got, value in zip(ops.fastinfer.int8_region(*arguments), wanted, strict=True):
        assert_equal(got, value)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_threads(count, threads):
    """Parts of a step read what no other part writes."""
    threads(count)
    p, x, residual = two_images()
    for kernel in (1, 3, 1):
        residual = p.lookup(p.add(p.conv(x, 64, kernel, residual), x))
    arguments = p.arguments("threads", [p.mean(residual), residual], 2, 60, 50)
    wanted = int8_region_ref(*arguments)
    for got, value in zip(ops.fastinfer.int8_region(*arguments), wanted, strict=True):
        assert_equal(got, value)
