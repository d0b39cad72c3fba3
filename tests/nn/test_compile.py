"""torch.compile sees the regions of a converted model, and gives the same bits."""

from __future__ import annotations

import copy

import pytest
import torch
from torch._dynamo.backends.registry import lookup_backend
from traced_ops import DYNAMIC, REGION, assert_same, converted, gated, ops_of, swapped

import fastinfer


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    with torch.no_grad():
        yield


def compiled(module, backend="eager", **options):
    """Return (compiled module, list of the ops of every graph it makes)."""
    seen = []

    def record(graph_module, example):
        seen.extend(ops_of(graph_module))
        return lookup_backend(backend)(graph_module, example)

    return torch.compile(module, backend=record, **options), seen


@pytest.mark.parametrize(
    ("name", "backend", "dynamic"),
    [
        *((n, b, d) for n in ("residual", "mlp") for b in ("eager", "aot_eager") for d in (0, 1)),
        ("mlp", "inductor", 0),
        ("residual", "inductor", 1),  # with C++ of inductor's own round the region
    ],
)
def test_whole(name, backend, dynamic):
    fast, x, other = converted(name)
    run, seen = compiled(fast, backend, fullgraph=True, dynamic=bool(dynamic))
    for value in (x, x[:2], x[:1], other):
        assert_same(run(value), fast(value))
    assert set(seen) == {REGION}


def test_loaded_weights_are_seen():
    fast, x, _ = converted("residual")
    mine = copy.deepcopy(fast)
    run, _ = compiled(mine, fullgraph=True)
    before = run(x)["logits"]
    state = mine.state_dict()
    state["lowered._tensors.offset"] = state["lowered._tensors.offset"] + 1
    state["lowered.stem.multiplier"] = state["lowered.stem.multiplier"] * 1.5
    mine.load_state_dict(state)
    assert_same(run(x), mine(x))
    assert not torch.equal(run(x)["logits"], before)


def test_a_call_outside_the_graph():
    """It is compiled as the float model, and the other calls as the graph."""
    fast, x, _ = converted("residual")
    run, seen = compiled(fast)
    assert_same(run(x, 2.0), fast(x, 2.0))
    assert not any(name.startswith("fastinfer") for name in seen)
    assert_same(run(x), fast(x))
    assert seen[-1] == REGION


def test_hooks_on_a_layer_of_a_region():
    fast, x, _ = converted("residual")
    mine, seen = copy.deepcopy(fast), []
    mine.lowered.stem.register_forward_hook(lambda module, args, output: seen.append(output))
    run, ops = compiled(mine)
    assert_same(run(x), fast(x))
    assert len(seen) == 1 and REGION not in ops


def test_inputs_that_require_a_gradient():
    fast, x, _ = converted("mlp")
    with torch.enable_grad():
        run, seen = compiled(fast, "aot_eager", fullgraph=True)
        got = run(x.clone().requires_grad_())
    assert not got.requires_grad and seen == [REGION]
    assert_same(got, fast(x))


def test_submodules():
    fast, x = gated()
    run, seen = compiled(fast)
    assert_same(run(x), fast(x))
    assert set(seen) == {REGION}


def test_module_path():
    fast, x = swapped()
    run, seen = compiled(fast, "aot_eager", fullgraph=True, dynamic=True)
    for value in (x, x[:3]):
        assert_same(run(value), fast(value))
    assert set(seen) == {DYNAMIC}
    assert fastinfer.report(run) is fastinfer.report(fast)
