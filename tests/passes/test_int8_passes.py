"""The int8 passes on small lowered graphs: exact before and after, and done after one run."""

from __future__ import annotations

import operator

import pytest
import torch
from torch import fx, nn

import fastinfer  # noqa: F401  (registers the ops)
from fastinfer.graph.capture import capture
from fastinfer.passes import INT8_PASSES, run_passes
from fastinfer.passes.cancel_quantize import cancel_quantize
from fastinfer.passes.contiguous_outputs import contiguous_outputs
from fastinfer.passes.sink_dequantize import sink_dequantize
from fastinfer.program import Program

aten = torch.ops.aten
quantize = torch.ops.fastinfer.quantize.default
dequantize = torch.ops.fastinfer.dequantize.default
MAP = (0.05, 120)
CODES = torch.arange(2 * 8 * 4 * 4).remainder(256).to(torch.uint8).reshape(2, 8, 4, 4)


def between(body):
    """Return a graph uint8 -> dequantize -> body -> output; body(graph, node) answers nodes."""
    graph = fx.Graph()
    q = graph.placeholder("q")
    real = graph.call_function(dequantize, (q, *MAP))
    real.meta["val"] = torch.empty(2, 8, 4, 4)
    graph.output(tuple(body(graph, real)))
    return Program(fx.GraphModule(nn.Module(), graph))


def targets(program):
    return [n.target for n in program.graph_module.graph.nodes if n.op == "call_function"]


def check(program, one, *, rewrites):
    """Run one pass: the answer stays the same to the bit, and a second run finds nothing."""
    before = program.graph_module(CODES)
    assert (one(program) > 0) == rewrites
    assert one(program) == 0
    after = program.graph_module(CODES)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_round_trip_cancels_for_every_code():
    program = between(lambda g, x: [g.call_function(quantize, (x, *MAP, False))])
    check(program, cancel_quantize, rewrites=True)
    assert targets(program) == []


def test_round_trip_of_another_map_stays():
    program = between(lambda g, x: [g.call_function(quantize, (x, 0.06, 120, False))])
    check(program, cancel_quantize, rewrites=False)


def test_equal_quantizes_are_one():
    def body(graph, x):
        y = graph.call_function(aten.neg.default, (x,))
        return [graph.call_function(quantize, (y, *MAP, False)) for _ in range(2)]

    program = between(body)
    check(program, cancel_quantize, rewrites=True)
    assert targets(program).count(quantize) == 1


MOVED = {
    "reshape": lambda g, x: g.call_function(aten.reshape.default, (x, [2, -1])),
    "permute": lambda g, x: g.call_function(aten.permute.default, (x, [0, 2, 3, 1])),
    "slice": lambda g, x: g.call_function(aten.slice.Tensor, (x, 1, 0, 4)),
    "cat": lambda g, x: g.call_function(aten.cat.default, ([x, x], 1)),
    "upsample": lambda g, x: g.call_function(aten.upsample_nearest2d.vec, (x, [8, 8], None)),
    "chunk": lambda g, x: g.call_function(
        operator.getitem, (g.call_function(aten.chunk.default, (x, 2, 1)), 1)
    ),
    "shuffle": lambda g, x: g.call_function(
        aten.reshape.default,
        (
            g.call_function(
                aten.transpose.int,
                (g.call_function(aten.reshape.default, (x, [2, 2, 4, 4, 4])), 1, 2),
            ),
            [2, 8, 4, 4],
        ),
    ),
}


@pytest.mark.parametrize("name", MOVED)
def test_moving_operators_run_on_uint8(name):
    program = between(lambda g, x: [g.call_function(quantize, (MOVED[name](g, x), *MAP, False))])
    check(program, sink_dequantize, rewrites=True)
    assert not {quantize, dequantize} & set(targets(program))


@pytest.mark.parametrize("name", MOVED)
def test_what_stays_float_is_left(name):
    program = between(lambda g, x: [MOVED[name](g, x)])
    check(program, sink_dequantize, rewrites=False)


def test_another_map_is_left():
    body = MOVED["reshape"]
    program = between(lambda g, x: [g.call_function(quantize, (body(g, x), 0.06, 3, False))])
    check(program, sink_dequantize, rewrites=False)


def test_float_user_gets_its_own_dequantize():
    def body(graph, x):
        y = graph.call_function(aten.slice.Tensor, (x, 1, 0, 4))
        flat = graph.call_function(aten.reshape.default, (y, [2, -1]))
        return [
            graph.call_function(quantize, (flat, *MAP, False)),
            graph.call_function(aten.relu.default, (y,)),
            graph.call_function(quantize, (flat, 0.1, 0, False)),
        ]

    program = between(body)
    check(program, sink_dequantize, rewrites=True)
    assert targets(program).count(quantize) == 1
    assert targets(program).count(dequantize) == 2


def test_cat_with_a_float_part_is_left():
    def body(graph, x):
        other = graph.call_function(aten.relu.default, (x,))
        y = graph.call_function(aten.cat.default, ([x, other], 1))
        return [graph.call_function(quantize, (y, *MAP, False))]

    check(between(body), sink_dequantize, rewrites=False)


def test_both_parts_of_a_split_move_together():
    def body(graph, x):
        parts = graph.call_function(aten.split.Tensor, (x, 4, 1))
        first, second = (graph.call_function(operator.getitem, (parts, i)) for i in range(2))
        second = graph.call_function(aten.neg.default, (second,))
        return [graph.call_function(quantize, (first, *MAP, False)), second]

    program = between(body)
    check(program, sink_dequantize, rewrites=True)
    assert targets(program).count(dequantize) == 1


def test_max_pool_stays_float():
    """torch 2.14 refuses channels_last uint8 images of more than 255 elements."""

    def body(graph, x):
        y = graph.call_function(aten.max_pool2d.default, (x, [2, 2], [2, 2]))
        return [graph.call_function(quantize, (y, *MAP, True))]

    check(between(body), sink_dequantize, rewrites=False)


def test_outputs_are_contiguous_where_the_models_are():
    class Turned(nn.Module):
        def forward(self, x):
            return x.transpose(1, 2).contiguous(), x.transpose(1, 2), x

    program = capture(Turned().eval(), (torch.randn(2, 3, 5),))
    run_passes(program, INT8_PASSES)
    assert contiguous_outputs(program) == 0
    first, second, third = program.graph_module(torch.randn(2, 3, 5))
    assert first.is_contiguous() and third.is_contiguous() and not second.is_contiguous()
