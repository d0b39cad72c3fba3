"""A captured graph is compared with its model on other sizes than the example's."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from fastinfer.graph.capture import capture
from fastinfer.graph.domain import verified
from fastinfer.graph.errors import CaptureError

X = torch.randn(1, 3, 128, 130, generator=torch.Generator().manual_seed(0))


class _Twice(nn.Module):
    """Doubles, and does something else where `other` says so; `seen` has the sizes of calls."""

    def __init__(self, other=lambda x: None):
        super().__init__()
        self.other = other
        self.seen = []

    def forward(self, x):
        self.seen.append(tuple(x.shape))
        answer = self.other(x)
        return 2 * x if answer is None else answer


@pytest.fixture(scope="module")
def captured():
    """Return the graph and its call as they were before batches of 1 and 0 were tried."""
    program = capture(_Twice().eval(), (X,))
    (given,) = program.call.inputs
    batch, *sizes = given.sizes
    exported = replace(given, sizes=(replace(batch, low=2), *sizes))
    return program.graph_module, replace(program.call, inputs=(exported,))


def _checked(captured, other, x=X):
    graph_module, call = captured
    model = _Twice(other)
    verified(model, graph_module, call, {"x": x})
    return model.seen


def test_batch_and_free_sizes_differ_in_one_call(captured):
    assert _checked(captured, lambda x: None) == [
        (1, 3, 128, 130),
        (3, 3, 64, 65),
        (0, 3, 128, 130),
    ]


@pytest.mark.parametrize(
    "other",
    [
        lambda x: 3 * x if x.shape[2] < 100 else None,
        lambda x: 3 * x if x.shape[0] == 3 else None,
        lambda x: (x, x) if x.shape[3] < 100 else None,
    ],
    ids=["size", "batch", "structure"],
)
def test_another_answer_of_the_model_is_an_error(captured, other):
    with pytest.raises(CaptureError, match="answers other sizes differently"):
        _checked(captured, other)


def _large_only(x):
    if x.shape[2] < 100:
        raise ValueError("too small")


def test_a_model_that_takes_no_smaller_size_is_tried_on_its_own(captured):
    seen = _checked(captured, _large_only)
    assert seen == [(1, 3, 128, 130), (3, 3, 64, 65), (3, 3, 128, 130), (0, 3, 128, 130)]


def test_and_has_to_be_answered_there(captured):
    def other(x):
        _large_only(x)
        return 3 * x if x.shape[0] == 3 else None

    with pytest.raises(CaptureError, match="answers other sizes differently"):
        _checked(captured, other)


def test_a_graph_that_fails_where_the_model_runs_is_an_error(captured):
    graph_module = torch.fx.GraphModule({}, torch.fx.Graph())
    graph = graph_module.graph
    given = graph.placeholder("x")
    graph.output((graph.call_method("view", (given, -1, 3, 128, 130)),))
    graph_module.recompile()
    with pytest.raises(CaptureError, match="the captured graph does not run"):
        _checked((graph_module, captured[1]), lambda x: 1 * x)


def test_short_sizes_stay(captured):
    seen = _checked(captured, lambda x: None, X[:, :, :40, :70].contiguous())
    assert seen[1] == (3, 3, 40, 35)
