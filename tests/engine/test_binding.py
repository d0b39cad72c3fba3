"""Regions bound for calls by a number: they give what the list of their buffers gives, always."""

from __future__ import annotations

import copy
import gc
import os

import pytest
import torch
from torch import fx, nn
from torch.utils._python_dispatch import TorchDispatchMode

import fastinfer
from fastinfer.engine import RegionModule
from fastinfer.engine.binding import Bound
from fastinfer.nn.converted_module import region_modules
from fastinfer.ops.int8_region import int8_region_ref
from fastinfer.testing.cases_region import region_cases
from fastinfer.testing.compare import assert_equal
from fastinfer.types.region import Region

CASES = list(region_cases())
NETWORK = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.Conv2d(16, 8, 1))


class Holder(nn.Module):
    """Holds packed buffers as attributes."""

    def __init__(self, packed):
        super().__init__()
        for i, tensor in enumerate(packed):
            self.register_buffer(f"packed_{i}", tensor)


def region_of(packed, program):
    holder = Holder(packed)
    sources = [(holder, f"packed_{i}") for i in range(len(packed))]
    empty = fx.GraphModule(nn.Module(), fx.Graph())
    return RegionModule(Region.from_text(program), sources, empty, []), holder


def converted():
    torch.manual_seed(0)
    model, x = copy.deepcopy(NETWORK), torch.randn(2, 3, 20, 20)
    fast = fastinfer.convert(model, x, config="int8")
    (region,) = (m for _, m in region_modules(fast) if isinstance(m, RegionModule))
    return fast, region, x


def assert_all_equal(got, wanted):
    for value, reference in zip(got if isinstance(got, tuple) else (got,), wanted, strict=True):
        assert_equal(value, reference)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_reference(case):
    inputs, packed, program = case.build()
    region, _ = region_of(packed, program)
    wanted = int8_region_ref(inputs, packed, program)
    for _ in range(2):
        assert_all_equal(region(*inputs), wanted)
    assert region._binding.bound is not None


def _other(case):
    """Return the case's arguments with a table in place of the last uint8 one."""
    inputs, packed, program = case.build()
    table = next(i for i, t in enumerate(packed) if t.numel() == 256)
    return inputs, packed, program, table, packed[table].flip(0).contiguous()


@pytest.mark.parametrize("way", ["attribute", "dictionary", "data", "set_", "copy_", "share"])
def test_sees_a_buffer_that_changes(way):
    case = next(c for c in CASES if any(t.numel() == 256 for t in c.build()[1]))
    inputs, packed, program, table, other = _other(case)
    region, holder = region_of(packed, program)
    before = int8_region_ref(inputs, packed, program)
    assert_all_equal(region(*inputs), before)
    name = f"packed_{table}"
    if way == "attribute":
        setattr(holder, name, other)
    elif way == "dictionary":
        holder._buffers[name] = other
    elif way == "data":
        packed[table].data = other
    elif way == "set_":
        packed[table].set_(other)
    elif way == "copy_":
        packed[table].copy_(other)
    else:
        for tensor in packed:
            tensor.share_memory_()
        other = packed[table]
    now = [other if i == table else t for i, t in enumerate(packed)]
    wanted = int8_region_ref(inputs, now, program)
    assert way == "share" or not all(map(torch.equal, before, wanted))
    for _ in range(2):
        assert_all_equal(region(*inputs), wanted)


def test_functional_call_is_for_that_call():
    case = next(c for c in CASES if any(t.numel() == 256 for t in c.build()[1]))
    inputs, packed, program, table, other = _other(case)
    region, holder = region_of(packed, program)
    wanted = int8_region_ref(inputs, packed, program)
    assert_all_equal(region(*inputs), wanted)
    region.add_module("holder", holder)
    now = [other if i == table else t for i, t in enumerate(packed)]
    got = torch.func.functional_call(region, {f"holder.packed_{table}": other}, tuple(inputs))
    assert_all_equal(got, int8_region_ref(inputs, now, program))
    assert_all_equal(region(*inputs), wanted)


def test_sees_hooks_that_come_and_go():
    fast, region, x = converted()
    wanted = fast(x)
    bound = region._binding.bound
    assert bound is not None
    assert bound.holds()
    for register in ("register_forward_hook", "register_forward_pre_hook"):
        seen = []
        layer = region._modules_of[0]
        handle = getattr(layer, register)(lambda *args, seen=seen: seen.append(1))
        assert_equal(fast(x), wanted)
        handle.remove()
        assert_equal(fast(x), wanted)
        assert seen == [1]
    # As some remove all hooks, and then set one.
    layer._forward_hooks = type(layer._forward_hooks)()
    layer.register_forward_hook(lambda *args: seen.append(2))
    assert_equal(fast(x), wanted)
    assert seen == [1, 2]


def test_other_attributes_keep_it_bound():
    fast, region, x = converted()
    wanted = fast(x)
    bound = region._binding.bound
    region._modules_of[0].note = "mine"
    assert bound.holds()
    assert_equal(fast(x), wanted)
    assert region._binding.bound is bound


def test_copies_are_bound_to_their_own_tensors():
    fast, region, x = converted()
    wanted = fast(x)
    copied = copy.deepcopy(fast)
    (own,) = (m for _, m in region_modules(copied) if isinstance(m, RegionModule))
    assert own._binding.bound is None
    assert_equal(copied(x), wanted)
    assert own._binding.bound.number != region._binding.bound.number
    other, _, _ = converted()
    state = {k: v.flip(0) if k.endswith("weight") else v for k, v in fast.state_dict().items()}
    copied.load_state_dict(state)
    other.load_state_dict(state)
    assert_equal(copied(x), other(x))
    assert not torch.equal(copied(x), wanted)
    assert_equal(fast(x), wanted)


def test_is_released_with_its_module():
    inputs, packed, program = CASES[0].build()
    region, holder = region_of(packed, program)
    region(*inputs)
    number = region._binding.bound.number
    alive = torch.ops.fastinfer.int8_region_call(inputs, number)
    assert_all_equal(tuple(alive), int8_region_ref(inputs, packed, program))
    del region, holder
    gc.collect()
    with pytest.raises(RuntimeError, match=f"int8_region_call: region: expected .* got {number}"):
        torch.ops.fastinfer.int8_region_call(inputs, number)


def bound_to(packed, program):
    region, holder = region_of(packed, program)
    return Bound(program, (holder,), region.sources)


def test_one_tensor_in_and_out_is_the_same_call():
    _, region, x = converted()
    bound = bound_to(region.packed(), region.program)
    (wanted,) = int8_region_ref([x], region.packed(), region.program)
    assert_equal(torch.ops.fastinfer.int8_region_call_one(x, bound.number), wanted)


@pytest.mark.parametrize("n_inputs", [1, 2])
def test_one_tensor_does_not_stand_for_lists(n_inputs):
    case = next(c for c in CASES if len(c.build()[0]) == n_inputs)
    inputs, packed, program = case.build()
    bound = bound_to(packed, program)
    message = "call_one: region: expected one with 1 output, got" if n_inputs == 1 else "2 inputs"
    with pytest.raises(RuntimeError, match=message):
        torch.ops.fastinfer.int8_region_call_one(inputs[0], bound.number)


def test_refuses_wrong_buffers_when_bound():
    _, packed, program = CASES[0].build()
    with pytest.raises(RuntimeError, match="expected uint8 or float32, got Long"):
        torch.ops.fastinfer.int8_region_bind([packed[0].long()], program)
    with pytest.raises(RuntimeError, match="expected contiguous"):
        torch.ops.fastinfer.int8_region_bind([packed[0][::2]], program)


class Names(TorchDispatchMode):
    """Notes the ops that run."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.name())
        return func(*args, **(kwargs or {}))


def test_a_mode_sees_the_op_with_all_its_tensors():
    fast, _, x = converted()
    wanted = fast(x)
    with Names() as mode:
        got = fast(x)
    assert_equal(got, wanted)
    ours = [name for name in mode.names if name.startswith("fastinfer")]
    assert ours == ["fastinfer::int8_region"]


def test_a_child_calls_and_binds():
    inputs, packed, program = CASES[0].build()
    region, holder = region_of(packed, program)
    wanted = int8_region_ref(inputs, packed, program)
    assert_all_equal(region(*inputs), wanted)
    child = os.fork()
    if child == 0:
        try:
            assert_all_equal(region(*inputs), wanted)
            assert Bound(program, [], region.sources).number > region._binding.bound.number
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert holder is not None
