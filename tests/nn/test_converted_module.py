"""What `convert` returns is a good citizen: calls, copies, threads."""

from __future__ import annotations

import copy
import inspect
import threading

import pytest
import torch
from small_models import make

import fastinfer


@pytest.fixture(autouse=True)
def one_thread(threads):
    threads(1)
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def residual():
    torch.set_num_threads(1)
    model, x, other = make("residual")
    with torch.no_grad():
        return model, fastinfer.convert(model, x, config="int8"), other


def test_layers_carry_the_models_names(residual):
    rows = {row.name: row.precision for row in fastinfer.report(residual[1]).layers}
    assert rows == dict.fromkeys(("stem", "blocks.0.conv", "blocks.1.conv", "head"), "int8")


def test_calls(residual):
    model, fast, x = residual
    wanted = fast(x)["logits"]
    assert torch.equal(fast(x=x)["logits"], wanted)
    assert torch.equal(fast(x, scale=1.0)["logits"], wanted)
    # An option the graph does not hold for is answered by the float model.
    assert torch.equal(fast(x, 2.0)["logits"], model(x, 2.0)["logits"])
    assert inspect.signature(fast.forward) == inspect.signature(model.forward)


@pytest.mark.parametrize("batch", [0, 1, 2, 7])
def test_batches_are_independent(residual, batch):
    _, fast, x = residual
    many = x[:1].repeat(batch, 1, 1, 1)
    got = fast(many)
    assert got["logits"].shape == (batch, 10)
    if batch:
        assert torch.equal(got["logits"][-1:], fast(x[:1])["logits"])


def test_layouts(residual):
    _, fast, x = residual
    wanted = fast(x)["logits"]
    assert torch.equal(fast(x.to(memory_format=torch.channels_last))["logits"], wanted)
    turned = x.transpose(2, 3).contiguous().transpose(2, 3)
    assert torch.equal(fast(turned)["logits"], wanted)
    wide = torch.randn(*x.shape[:3], 2 * x.shape[3])
    wide[..., ::2] = x
    assert torch.equal(fast(wide[..., ::2])["logits"], wanted)


def test_copies_and_state(residual):
    _, fast, x = residual
    wanted = fast(x)["logits"]
    copied = copy.deepcopy(fast)
    assert torch.equal(copied(x)["logits"], wanted)
    state = {k: v.clone() for k, v in fast.state_dict().items()}
    copied.load_state_dict(state)
    assert torch.equal(copied(x)["logits"], wanted)
    assert fastinfer.report(copied) is not None


def test_the_result_stands_alone():
    """Neither training the original nor its mode changes what the converted model answers."""
    model, x, other = make("residual")
    fast = fastinfer.convert(model, x, config=fastinfer.Config("int8", ignore=("head",)))
    wanted, optional = fast(other)["logits"].clone(), fast(other, 2.0)["logits"].clone()
    model.train()
    assert torch.equal(fast(other, 2.0)["logits"], optional)
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.add_(1)
    assert torch.equal(fast(other)["logits"], wanted)
    with pytest.raises(ValueError, match="changed after convert"):
        fast(other, 2.0)


def test_loaded_state_reaches_the_regions():
    """Tensors of the graph that belong to no layer are read where load_state_dict puts them."""
    model, x, _ = make("residual")
    fast = fastinfer.convert(model, x, config="int8")
    assert fast._regions
    wanted = fast(x)["logits"] + 1.0
    for assign in (False, True):
        state = {k: v.clone() for k, v in fast.state_dict().items()}
        state["lowered._tensors.offset"] += 0.0 if assign else 1.0
        fast.load_state_dict(state, assign=assign)
        assert torch.allclose(fast(x)["logits"], wanted)
        assert torch.equal(fast.lowered(x)[0], fast(x)["logits"])


def test_hooks_and_inference_mode(residual):
    _, fast, x = residual
    seen = []
    handle = fast.register_forward_hook(lambda module, args, output: seen.append(output))
    with torch.inference_mode():
        fast(x)
    handle.remove()
    assert len(seen) == 1


def test_threads_give_the_same_bits(residual):
    _, fast, x = residual
    wanted, same = fast(x)["logits"], []

    def run():
        same.extend(torch.equal(fast(x)["logits"], wanted) for _ in range(10))

    workers = [threading.Thread(target=run) for _ in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert same == [True] * 60


def test_a_graph_of_one_region_is_called_straight(monkeypatch):
    model, x, other = make("separable")
    fast = fastinfer.convert(model, x, config="int8")
    wanted, of_other = fast(x), fast(other)

    def long_way(*args):
        raise AssertionError("this call went through the graph's code")

    copied = copy.deepcopy(fast)
    monkeypatch.setattr(fast, "_code", long_way)
    assert torch.equal(fast(x), wanted)
    assert torch.equal(fast(other), of_other)
    # Shapes not seen before and hooks need all that the long way asks.
    with pytest.raises(AssertionError, match="code"):
        fast(x.repeat(3, 1, 1, 1))
    layer = fast.lowered.get_submodule(fastinfer.report(fast).layers[0].name)
    handle = layer.register_forward_hook(lambda *args: None)
    with pytest.raises(AssertionError, match="code"):
        fast(x)
    handle.remove()
    # A copy has tensors of its own.
    assert torch.equal(copied(x), wanted)
    for buffer in copied.buffers():
        buffer.zero_()
    assert torch.equal(fast(x), wanted)
