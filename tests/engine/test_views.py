"""Joined and split channels without copies: the bits of the single ops, and how much is copied."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastinfer import runtime
from fastinfer.ops.int8_region import int8_region_ref
from fastinfer.testing.cases_views import PROGRAMS, ImageProgram, view_case
from fastinfer.testing.compare import assert_equal

#: By what the arena may exceed what is alive at one step.
ARENA_BOUND = 1.3


def run(arguments):
    return torch.ops.fastinfer.int8_region(*arguments)


def assert_as_single_ops(arguments):
    for got, wanted in zip(run(arguments), int8_region_ref(*arguments), strict=True):
        assert_equal(got, wanted)


def recorded(arguments):
    """Return the record of a call whose answers are the reference's."""
    with runtime.recording() as calls:
        assert_as_single_ops(arguments)
    (call,) = calls
    return call


def plan_of(program, outputs, batch=1, height=6, width=5):
    """Return the record of a call of a program; its answers are the reference's."""
    arguments = program.arguments("plan", outputs, batch, height, width)
    return recorded(arguments)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("name", PROGRAMS)
def test_threads(name, count, threads):
    """Large enough that steps are shared by threads."""
    threads(count)
    assert_as_single_ops(view_case(name, 33, 2, 30, 28).build())


@pytest.mark.parametrize("name", PROGRAMS)
def test_sliced_batch(name, threads):
    """So many values that the batch runs in slices, with plans of fewer samples."""
    threads(2)
    arguments = view_case(name, 48, 7, 60, 52).build()
    assert recorded(arguments).slices > 1


@pytest.mark.parametrize("name", PROGRAMS)
def test_arena(name, threads):
    for height in (6, 20):
        arguments = view_case(name, 24, 2, height, 11).build()
        call = recorded(arguments)
        assert call.arena_bytes <= ARENA_BOUND * call.arena_lower_bound


@pytest.mark.parametrize("name", ["inception", "dense", "shuffled", "grouped"])
def test_patterns_of_networks_copy_nothing(name):
    program, outputs = PROGRAMS[name](24)
    assert plan_of(program, outputs).copied_bytes == 0


def test_what_is_copied():
    """30 pixels: the bytes of the parts that cannot lie in the result."""
    p = ImageProgram(8)
    a, b = p.conv(0, 8), p.conv(0, 5)
    whole = p.cat([a, b, 0])
    assert plan_of(p, [p.conv(whole, 4)]).copied_bytes == 8 * 30  # the caller's input
    assert plan_of(p, [a, p.conv(whole, 4)]).copied_bytes == (8 + 8) * 30  # and a result
    assert plan_of(p, [whole]).copied_bytes == 8 * 30  # parts are made in the caller's memory

    p = ImageProgram(8)
    a, b, c = p.conv(0, 8), p.conv(0, 5), p.conv(0, 6)
    wide, narrow = p.cat([a, b, c]), p.cat([b, a])
    outputs = [p.conv(wide, 4), p.conv(narrow, 4)]
    assert plan_of(p, outputs).copied_bytes == (8 + 5) * 30  # the wide one has them
    p = ImageProgram(8)
    a, b = p.conv(0, 8), p.conv(0, 5)
    other_map = p.cat([a, b], converted=[1])
    assert plan_of(p, [p.conv(other_map, 4)]).copied_bytes == 5 * 30
    p = ImageProgram(8)
    a = p.conv(0, 8)
    residual = p.conv(a, 8, residual=a)
    assert plan_of(p, [p.mean(p.cat([a, residual]))]).copied_bytes == (8 + 8) * 30


def test_slices():
    p = ImageProgram(8)
    half = p.slice(0, 2, 6)
    assert plan_of(p, [p.conv(half, 4, 3), p.mean(half)]).copied_bytes == 0
    assert plan_of(p, [half]).copied_bytes == 4 * 30  # results are dense
    assert plan_of(p, [p.add(half, half)]).copied_bytes == 4 * 30  # additions read dense images


def test_slices_of_a_shuffled_image_are_shuffled_alone():
    p = ImageProgram(12)
    shuffled = p.shuffle(0, 3)
    outputs = [p.conv(p.slice(shuffled, 1, 5), 4), p.conv(p.slice(shuffled, 5, 11), 4)]
    assert len(plan_of(p, outputs).steps) == 4
    # Not where something else reads it whole, or slices overlap.
    assert len(plan_of(p, [*outputs, shuffled]).steps) == 3
    p = ImageProgram(12)
    shuffled = p.shuffle(0, 3)
    outputs = [p.conv(p.slice(shuffled, 1, 6), 4), p.conv(p.slice(shuffled, 5, 11), 4)]
    assert len(plan_of(p, outputs).steps) == 3


def test_gaps_keep_pixels_out_of_each_others_cache_sets():
    """30 pixels of 1024 channels, 64 bytes apart where every step can step over these."""
    apart, dense = (1024 + 64) * 30, 1024 * 30

    def arena(build):
        p = ImageProgram(8)
        return plan_of(p, [build(p, p.conv(0, 1024))]).arena_bytes

    def added(p, a):
        return p.conv(0, 1024, residual=a)

    assert arena(lambda p, a: p.conv(a, 4)) == apart
    assert arena(lambda p, a: p.mean(added(p, added(p, a)))) == apart
    # A result is the caller's memory, additions read dense images, and residuals lie as they do.
    assert arena(added) == dense
    assert arena(lambda p, a: added(p, added(p, a))) == dense
    assert arena(lambda p, a: p.mean(p.add(a, added(p, a)))) == 2 * dense
    # Channels of a wider image have its gaps.
    assert arena(lambda p, a: p.conv(p.slice(a, 0, 512), 4)) == apart
    assert arena(lambda p, a: p.mean(p.cat([a, p.conv(0, 1024)]))) == (2048 + 64) * 30


NARROW = st.integers(1, 24)
WIDE = st.sampled_from((8, 512, 1024))


@st.composite
def programs(draw, widths):
    """Cats, slices and the steps around them, in any order; any values are results."""
    p = ImageProgram(draw(widths))
    for _ in range(draw(st.integers(2, 9))):
        x = draw(st.integers(0, len(p.channels) - 1))
        width = p.channels[x]
        kind = draw(st.sampled_from(("cat", "cat", "cat", "conv", "conv", "slice", "other")))
        if kind == "cat":
            parts = draw(st.lists(st.integers(0, len(p.channels) - 1), min_size=1, max_size=4))
            p.cat(parts, draw(st.sampled_from(((), (), (0,), (1,)))))
        elif kind == "conv":
            out, kernel = draw(widths), draw(st.sampled_from((1, 3)))
            residual = draw(st.sampled_from((None, x)))
            p.conv(x, out if residual is None else width, kernel, residual)
        elif kind == "slice":
            first = draw(st.integers(0, width - 1))
            p.slice(x, first, draw(st.integers(first + 1, width)))
        else:
            other = draw(st.integers(0, 4))
            if other < 2:
                p.pool(x, ("max", "avg")[other])
            elif other == 2:
                p.depthwise(x, 3)
            elif other == 3:
                p.add(x, x)
            else:
                p.shuffle(x, next(g for g in (2, 3, 1) if width % g == 0))
    count = len(p.channels)
    outputs = draw(st.lists(st.integers(1, count - 1), min_size=1, max_size=3, unique=True))
    return p, outputs, draw(st.integers(1, 2)), draw(st.integers(1, 7)), draw(st.integers(1, 7))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(programs(NARROW))
def test_any_program(drawn):
    program, outputs, batch, height, width = drawn
    assert_as_single_ops(program.arguments("any", outputs, batch, height, width))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(programs(WIDE))
def test_any_program_of_wide_images(drawn):
    """Some have gaps between their pixels, and parts and residuals that share these."""
    program, outputs, batch, height, width = drawn
    assert_as_single_ops(program.arguments("wide", outputs, batch, height, width))
