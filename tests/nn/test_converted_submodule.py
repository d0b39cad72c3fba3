"""ConvertedSubmodule: the code around it uses it as it used the original."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from fastinfer.graph.capture import capture
from fastinfer.nn.converted_module import InferenceModule
from fastinfer.nn.converted_submodule import ConvertedSubmodule
from fastinfer.testing.compare import assert_equal


class Body(nn.Sequential):
    out_channels = 4

    def __init__(self):
        super().__init__(nn.Conv2d(3, 4, 3), nn.ReLU())
        self.calls = {"seen": 3}

    @property
    def doubled(self):
        return 2 * self.out_channels

    def first(self, x):
        return self[0](x)

    def forward(self, x, scale=1.0):
        if x.shape[1] != 3:
            raise KeyError("three channels")
        return super().forward(x) * scale


@pytest.fixture
def pair():
    torch.manual_seed(0)
    body, x = Body().eval(), torch.randn(2, 3, 8, 8)
    program = capture(body, (x,))
    return body, ConvertedSubmodule(program.graph_module, program.call, None, body), x


def test_attributes_are_the_originals(pair):
    body, fast, x = pair
    with torch.no_grad():
        assert (fast.out_channels, fast.doubled, fast.calls) == (4, 8, {"seen": 3})
        assert_equal(fast.first(x), body.first(x))
        assert fast[0].weight is body[0].weight
    with pytest.raises(AttributeError, match="nothing"):
        _ = fast.nothing
    assert not hasattr(fast, "__wrapped__")


def test_it_is_a_container_where_the_original_is(pair):
    _, fast, _ = pair
    assert len(fast) == 2 and isinstance(fast[1], nn.ReLU)
    assert [type(m) for m in fast] == [nn.Conv2d, nn.ReLU]
    with pytest.raises(TypeError):
        linear = nn.Linear(2, 2).eval()
        program = capture(linear, (torch.ones(3, 2),))
        len(ConvertedSubmodule(program.graph_module, program.call, None, linear))


def test_it_passes_for_the_original(pair):
    _, fast, _ = pair
    assert isinstance(fast, Body) and isinstance(fast, nn.Sequential)
    assert isinstance(fast, InferenceModule) and type(fast) is not Body
    assert not isinstance(fast, nn.Linear)


def test_calls_outside_the_graph_are_the_originals(pair):
    body, fast, x = pair
    with torch.no_grad():
        assert_equal(fast(x, 2.0), body(x, 2.0))
        assert_equal(fast(x=x), body(x))
        for wrong in (torch.ones(2, 4, 8, 8), x.double()):
            with pytest.raises((KeyError, RuntimeError)) as theirs:
                body(wrong)
            with pytest.raises(theirs.type) as mine:
                fast(wrong)
            assert str(mine.value) == str(theirs.value)


def test_copies(pair):
    _, fast, x = pair
    again = copy.deepcopy(nn.ModuleDict({"body": fast}))["body"]
    assert type(again) is type(fast) and isinstance(again, Body) and again.out_channels == 4
    assert_equal(again(x), fast(x))
    again.load_state_dict(fast.state_dict())
    assert_equal(again(x), fast(x))


def test_train_is_refused(pair):
    holder = nn.Sequential(pair[1])
    holder.eval()
    with pytest.raises(RuntimeError, match="for inference"):
        holder.train()


def test_compile(pair):
    _, fast, x = pair
    torch._dynamo.reset()
    with torch.no_grad():
        compiled = torch.compile(nn.Sequential(fast), fullgraph=True, backend="eager")
        assert_equal(compiled(x), fast(x))
