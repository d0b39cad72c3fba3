"""Copies, state, moves and gradients of what `convert` returns; pickling is refused."""

from __future__ import annotations

import copy
import io
import multiprocessing
import pickle

import pytest
import torch
from small_models import make
from torch import nn
from traced_ops import assert_same, converted, gated, swapped

import fastinfer
from fastinfer.engine import RegionModule

REFUSED = r"a converted model is not pickled; use fastinfer\.save\(fast, path\)"
WAYS = {"graph": lambda: converted("residual")[:2], "submodules": gated, "modules": swapped}
every_way = pytest.mark.parametrize("way", WAYS)


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


@every_way
@pytest.mark.parametrize("wrapped", [False, True])
def test_pickling_is_refused(way, wrapped):
    fast, x = WAYS[way]()
    module = nn.Sequential(fast) if wrapped else fast
    for protocol in (2, pickle.HIGHEST_PROTOCOL):
        with pytest.raises(TypeError, match=REFUSED):
            pickle.dumps(module, protocol)
    with pytest.raises(TypeError, match=REFUSED):
        torch.save(module, io.BytesIO())
    assert fast(x) is not None


def test_a_converted_submodule_is_not_pickled_either():
    with pytest.raises(TypeError, match=REFUSED):
        pickle.dumps(gated()[0].model.body)


def test_a_spawned_process_gets_no_model():
    fast, _, _ = converted("mlp")
    process = multiprocessing.get_context("spawn").Process(target=print, args=(fast,))
    with pytest.raises(TypeError, match=REFUSED):
        process.start()


@every_way
def test_state_dicts_are_pickled(way):
    fast, _ = WAYS[way]()
    file = io.BytesIO()
    torch.save(fast.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    assert state.keys() == fast.state_dict().keys()
    assert copy.deepcopy(fast).load_state_dict(state).missing_keys == []


@every_way
@pytest.mark.parametrize("copier", [copy.deepcopy, copy.copy])
def test_copies(way, copier):
    fast, x = WAYS[way]()
    copied = copier(fast)
    assert type(copied) is type(fast) and copied is not fast
    assert_same(copied(x), fast(x))
    shared = {t.data_ptr() for t in fast.buffers()} & {t.data_ptr() for t in copied.buffers()}
    assert bool(shared) == (copier is copy.copy)


def test_a_copy_has_regions_on_its_own_tensors():
    """A constant, a layer's weight and a table are read from the copy, by call and by hook."""
    fast, x, _ = converted("residual")
    copied, wanted = copy.deepcopy(fast), fast(x)["logits"]
    (region,) = (m for m in copied._regions[0].modules() if isinstance(m, RegionModule))
    assert {id(m) for m in region._modules_of} <= {id(m) for m in copied.lowered.modules()}
    offset = fast.lowered._tensors.offset
    copied.lowered._tensors.offset = torch.zeros_like(offset)
    assert torch.equal(copied(x)["logits"] + offset, wanted)
    assert torch.equal(fast(x)["logits"], wanted)
    state = copied.state_dict()
    state["lowered.stem.multiplier"] *= 2
    copied.load_state_dict(state)
    changed = copied(x)
    assert not torch.equal(changed["logits"] + offset, wanted)
    assert torch.equal(fast(x)["logits"], wanted)
    seen = []
    copied.lowered.stem.register_forward_hook(lambda *args: seen.append(1))
    assert_same(copied(x), changed)
    assert seen == [1]


class Tabled(nn.Module):
    """A function of its own between int8 layers: a table in the graph's tensors."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)

    def forward(self, x):
        y = torch.relu(self.a(x))
        return self.b(nn.functional.silu(nn.functional.max_pool2d(y, 2)))


def test_a_table_is_read_where_the_state_dict_puts_it():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 8, 8)
    fast = copy.deepcopy(fastinfer.convert(Tabled().eval(), x, config="int8"))
    (name,) = (n for n, t in fast.state_dict().items() if n.startswith("lowered._tensors"))
    state, before = fast.state_dict(), fast(x)
    state[name] = state[name].flip(0)
    fast.load_state_dict(state, assign=True)
    after = fast(x)
    assert not torch.equal(after, before)
    fast.lowered.a.register_forward_hook(lambda *args: None)
    assert_same(fast(x), after)


def test_state_goes_to_another_conversion():
    model, x, _ = make("residual")
    one = fastinfer.convert(model, x, config="int8")
    for parameter in model.parameters():
        parameter.mul_(1.25)
    model.offset.add_(1)
    other = fastinfer.convert(model, x, config="int8", calibration=[x])
    assert not torch.equal(one(x)["logits"], other(x)["logits"])
    # The graph's own numbers, as the scale of its input, are no state: weights come over.
    one.load_state_dict(other.state_dict())
    for name, tensor in other.state_dict().items():
        assert torch.equal(one.state_dict()[name], tensor)


def test_buffers_of_the_original_are_not_shared():
    model, x, _ = make("residual")
    fast = fastinfer.convert(model, x, config="int8")
    wanted = fast(x)["logits"].clone()
    model.offset.add_(1)
    assert torch.equal(fast(x)["logits"], wanted)


@every_way
def test_moves_and_modes(way):
    fast, x = WAYS[way]()
    fast, wanted = copy.deepcopy(fast), fast(x)
    for move in (
        lambda: fast.to("cpu"), fast.cpu, fast.float, lambda: fast.to(torch.float32), fast.eval,
        lambda: fast.train(False), fast.share_memory, lambda: fast.requires_grad_(False),
    ):  # fmt: skip
        assert move() is fast
        assert_same(fast(x), wanted)
    assert all(t.is_shared() for t in fast.buffers())
    for refused in (fast.half, fast.double, fast.bfloat16, lambda: fast.to(torch.float16)):
        with pytest.raises(RuntimeError, match="dtypes it was converted to"):
            refused()
    with pytest.raises(RuntimeError, match="run on cpu and cuda only"):
        fast.to("meta")
    with pytest.raises(RuntimeError, match="train the original model"):
        fast.train()
    assert not any(m.training for m in fast.modules())
    assert_same(fast(x), wanted)


def test_float_leaves_bfloat16_weights():
    model, x, _ = make("mlp")
    fast = fastinfer.convert(model, x, config="bf16")
    wanted = fast(x)
    assert_same(fast.float()(x), wanted)


@every_way
def test_names_and_parameters(way):
    fast, _ = WAYS[way]()
    names = [name for name, _ in fast.named_modules()]
    assert len(names) == len(set(names)) and len(names) > 2
    assert not any(p.requires_grad for p in fast.parameters())
    tensors = [id(t) for t in (*fast.parameters(), *fast.buffers())]
    assert len(tensors) == len(set(tensors)) > 0


@every_way
def test_gradients(way):
    fast, x = WAYS[way]()
    wanted = fast(x)
    with torch.inference_mode():
        assert_same(fast(x), wanted)
    with torch.enable_grad():
        assert not any(t.requires_grad for t in tensors_of(fast(x)))
        got = fast(x.clone().requires_grad_())
        assert_same(got, wanted)
        first = next(t for t in tensors_of(got) if t.requires_grad)
        with pytest.raises(RuntimeError, match="for inference and has no gradient"):
            first.sum().backward()


def test_gradients_of_what_comes_behind_and_before():
    fast, x, _ = converted("mlp")
    head, stem = nn.Linear(4, 1), nn.Linear(8, 8)
    with torch.enable_grad():
        head(fast(x)).sum().backward()
        assert head.weight.grad is not None
        with pytest.raises(RuntimeError, match="has no gradient"):
            head(fast(stem(x))).sum().backward()
        with pytest.raises(RuntimeError, match="has no gradient"):
            torch.func.grad(lambda value: fast(value).sum())(x)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_vmap_calls_a_region_of_one_tensor_for_each_sample():
    fast, x, _ = converted("mlp")
    assert_same(torch.func.vmap(fast)(x.unsqueeze(1)).squeeze(1), fast(x))


def tensors_of(value):
    return torch.utils._pytree.tree_leaves(value)
