"""Programs with float steps and views: what shares memory, and what mixes a batch's samples."""

from __future__ import annotations

import pytest
import torch

from fastinfer import runtime
from fastinfer.measure import fixed_threads
from fastinfer.ops.int8_region import int8_region_ref
from fastinfer.testing.compare import assert_equal
from fastinfer.types.region import Region, Step

ADD, MUL = 0, 2
END = 2**62


def run(steps, outputs, *inputs, packed=()):
    text = Region(len(inputs), len(inputs) + len(steps), tuple(outputs), tuple(steps)).to_text()
    wanted = int8_region_ref(list(inputs), list(packed), text)
    for threads in (1, 2, 3):
        with fixed_threads(threads):
            found = torch.ops.fastinfer.int8_region(list(inputs), list(packed), text)
        for got, value in zip(found, wanted, strict=True):
            assert_equal(got, value)
            assert got.is_contiguous(memory_format=torch.channels_last) or got.dim() != 4
    return found, text


def slices_of(inputs, packed, text):
    with fixed_threads(2), runtime.recording() as calls:
        torch.ops.fastinfer.int8_region(list(inputs), list(packed), text)
    return calls[0].slices


#: Steps on value 0, [8, 8, 128, 80], whose samples need those of others, though every value has a
#: batch of 8; value 1 is what is looked at.
MIXING = {
    "permute": (Step("permute", 1, (0,), ((1, 0, 2, 3),)),),
    "roll": (Step("roll", 1, (0,), ((3,), (0,))),),
    "reshape": (Step("reshape", 1, (0,), ((8, -1),)),),
    "slice": (
        Step("join", 2, (0, 0), (0,)),
        Step("strided_slice", 1, (2,), (0, 3, 11, 1)),
    ),
    "pad": (Step("pad", 1, (0,), ((0, 0, 0, 0, 0, 0, 2, -2), 0, 0.5)),),
    "int8_cat": (
        Step("quantize", 2, (0,), (0.05, 120)),
        Step("int8_cat", 3, (2, 2), (0, (1.0, 0.5), (120, 120), 120)),
        Step("dequantize", 1, (3,), (0.05, 120)),
    ),
    "repeated mask": (
        Step("reshape", 2, (0,), ((-1, 4, 128, 80),)),
        Step("strided_slice", 3, (0,), (3, 0, 1, 1)),
        Step("strided_slice", 4, (3,), (1, 0, 1, 1)),
        Step("permute", 5, (4,), ((0, 1, 3, 2),)),
        Step("float_attention", 1, (2, 2, 2, 5), (0.1, False, -1, ())),
    ),
    "constant": (Step("float_binary", 1, (0,), (ADD, 0, (8, 1, 1, 1), 0.0, False)),),
    "ranks": (
        Step("strided_slice", 2, (0,), (1, 0, 1, 1)),
        Step("strided_slice", 3, (2,), (3, 0, 1, 1)),
        Step("reshape", 4, (3,), ((-2, -4),)),
        Step("strided_slice", 5, (4,), (1, 0, 1, 1)),
        Step("reshape", 6, (5,), ((8, 1, 1),)),
        Step("float_binary", 1, (0, 6), (ADD, -1, (), 0.0, False)),
    ),
}


@pytest.mark.parametrize("name", MIXING)
def test_samples_that_depend_on_others_are_not_cut_apart(name):
    x = torch.randn(8, 8, 128, 80, generator=torch.Generator().manual_seed(3))
    numbers = torch.arange(8.0)
    steps = [*MIXING[name]]
    order = sorted(steps, key=lambda step: step.out if step.out != 1 else 99)
    places = {0: 0, **{step.out: i + 1 for i, step in enumerate(order)}}
    renamed = [
        Step(s.kind, places[s.out], tuple(places[r] for r in s.reads), s.arguments) for s in order
    ]
    last = len(renamed)
    renamed.append(Step("float_unary", last + 1, (last,), (1, 0.0, 0.0)))
    renamed.append(Step("float_binary", last + 2, (last + 1,), (MUL, -1, (), 2.0, False)))
    _, text = run(renamed, (last + 2,), x, packed=(numbers,))
    assert slices_of((x,), (numbers,), text) == 1


def test_samples_on_their_own_run_in_slices():
    x = torch.randn(8, 8, 128, 80, generator=torch.Generator().manual_seed(3))
    steps = (
        Step("float_reduce", 1, (0,), (1, (2, 3))),
        Step("float_binary", 2, (0, 1), (1, -1, (), 0.0, False)),
        Step("permute", 3, (2,), ((0, 2, 3, 1),)),
        Step("reshape", 4, (3,), ((-2, -1, 8),)),
        Step("float_softmax", 5, (4,), (2,)),
        Step("roll", 6, (2,), ((5,), (2,))),
    )
    _, text = run(steps, (5, 6), x)
    assert slices_of((x,), (), text) > 1


def test_views_of_an_input_and_of_a_result():
    x = torch.randn(2, 6, 5, 7)
    steps = (
        Step("permute", 1, (0,), ((0, 3, 2, 1),)),
        Step("float_binary", 2, (1,), (MUL, -1, (), 3.0, False)),
        Step("strided_slice", 3, (2,), (1, 2, 5, 2)),
        Step("permute", 4, (3,), ((0, 1, 3, 2),)),
        Step("reshape", 5, (2,), ((-2, -1),)),
        Step("float_binary", 6, (2, 2), (ADD, -1, (), 0.0, False)),
    )
    run(steps, (1, 2, 3, 4, 5, 6), x)


def test_a_view_outlives_what_it_is_a_view_of():
    """The memory under a view must not be given away, nor written in place, before it is read."""
    x = torch.randn(1, 8, 16, 16)
    steps = (
        Step("float_unary", 1, (0,), (1, 0.0, 0.0)),
        Step("permute", 2, (1,), ((0, 2, 3, 1),)),
        Step("float_unary", 3, (1,), (2, 0.0, 0.0)),  # could lie where value 1 lies
        Step("float_unary", 4, (3,), (4, 0.0, 0.0)),
        Step("float_binary", 5, (4, 3), (ADD, -1, (), 0.0, False)),
        Step("reshape", 6, (2,), ((-2, -1),)),
        Step("reshape", 7, (5,), ((-2, -1),)),
        Step("float_binary", 8, (6, 7), (ADD, -1, (), 0.0, False)),
    )
    run(steps, (8,), x)


def test_codes_are_read_as_images_again():
    """A convolution's pixels, a slice's and a cat's are those of the view, not of what it shows."""
    g = torch.Generator().manual_seed(5)
    u = torch.randint(0, 256, (2, 3, 8, 10), generator=g, dtype=torch.uint8)
    pool = ((2, 2), (1, 1), (0, 0), (1, 1), False)
    steps = (
        Step("permute", 1, (0,), ((0, 3, 1, 2),)),
        Step("int8_max_pool2d", 2, (1,), pool),
        Step("slice", 3, (1,), (2, 7)),
        Step("int8_max_pool2d", 4, (3,), pool),
        Step("int8_cat", 5, (2, 4), (1, (1.0, 1.0), (0, 0), 0)),
        Step("reshape", 6, (0,), ((-2, -4, -5, 3),)),
        Step("permute", 7, (6,), ((0, 3, 1, 2),)),
        Step("int8_max_pool2d", 8, (7,), pool),
        Step("int8_cat", 9, (7, 7), (1, (1.0, 1.0), (0, 0), 0)),
    )
    run(steps, (5, 8, 9), u)
