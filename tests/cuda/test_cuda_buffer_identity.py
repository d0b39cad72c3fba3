"""Buffers at addresses that are used again: never taken for what lay there before."""

from __future__ import annotations

import gc

import torch
from cuda_library import need_gpu

from fastinfer.ops.catalog import OPS
from fastinfer.testing.cases import Conv, conv_case
from fastinfer.testing.compare import assert_equal
from fastinfer.testing.devices import on_device

need_gpu("addresses of a GPU's memory are not used again")

CALL = torch.ops.fastinfer.int8_conv2d
REFERENCE = next(op.reference for op in OPS if op.name == "int8_conv2d")
#: The same sections: 32 outputs of 144 inputs, as nine taps of 16 channels and as one of 144.
SHAPES = (
    Conv(2, 16, (6, 6), 32, (3, 3), (1, 1), (1, 1)),
    Conv(2, 144, (6, 6), 32, (1, 1), (1, 1), (0, 0)),
)


def test_a_copy_where_another_shape_lay():
    (x, nine, *geometry), (y, one, *plain) = (
        on_device(conv_case(conv).build(), "cuda") for conv in SHAPES
    )
    assert nine.numel() != one.numel()
    wants = [REFERENCE(x, nine, *geometry), REFERENCE(y, one, *plain)]
    for _ in range(20):
        for args, want in (((x, nine, *geometry), wants[0]), ((y, one, *plain), wants[1])):
            copy = args[1].clone()
            assert_equal(CALL(args[0], copy, *args[2:]), want)
            del copy
            gc.collect()


def test_a_copy_is_captured_once_it_was_used():
    x, packed, *rest = on_device(conv_case(SHAPES[0]).build(), "cuda")
    want = CALL(x, packed, *rest)
    held = packed.clone()
    CALL(x, held, *rest)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = CALL(x, held, *rest)
    graph.replay()
    assert_equal(out, want)
