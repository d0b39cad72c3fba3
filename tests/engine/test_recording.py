"""What the engine records of its calls: only when asked, only this thread's, the same answers."""

from __future__ import annotations

import threading

import pytest
import torch

from fastinfer import runtime
from fastinfer.ops.catalog import OPS
from fastinfer.ops.int8_region import run_step
from fastinfer.testing.cases_region import region_cases
from fastinfer.testing.compare import assert_equal
from fastinfer.types.packed import read_header
from fastinfer.types.region import Region, Step, buffers_of, multiply_adds

CASES = list(region_cases())
IMAGE = next(c for c in CASES if c.label.startswith("image") and "64x57" in c.label)


def run(args):
    return torch.ops.fastinfer.int8_region(*args)


def assert_plausible(call):
    """No step takes no time, and neither steps nor kernels take more than the call."""
    assert all(step.seconds > 0 and step.kernel_seconds >= 0 for step in call.steps)
    assert sum(step.kernel_seconds for step in call.steps) <= call.seconds
    assert sum(step.seconds for step in call.steps) <= call.seconds


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_recorded_call(case, count, threads):
    """Every step of the program that is no view, with the shapes of what it reads and makes."""
    threads(count)
    inputs, packed, program = args = case.build()
    wanted = run(args)
    with runtime.recording() as calls:
        got = run(args)
        assert not calls, "filled when the block ends"
    for value, before in zip(got, wanted, strict=True):
        assert_equal(value, before)
    (call,) = calls
    region = Region.from_text(program)
    assert call.program == program
    assert call.weights == tuple((t.data_ptr(), t.nbytes) for t in packed)
    assert call.slices == 1 and call.threads >= 1
    recorded = {s.out: s.kind for s in call.steps}
    assert len(recorded) == len(call.steps)
    views = [s.kind for s in region.steps if s.out not in recorded]
    assert set(views) <= {"int8_cat", "slice", "channel_shuffle"}
    left = [s for s in region.steps if s.out in recorded]
    assert all(recorded[s.out] in (s.kind, "shuffled_slice") for s in left)
    own = [s.out for s in call.steps if s.kind != "interleave"]
    assert own == [s.out for s in left]
    shapes = [tuple(t.shape) for t in inputs]
    assert [call.values[i].shape for i in range(len(inputs))] == shapes
    assert [call.values[v].shape for v in region.outputs] == [tuple(t.shape) for t in wanted]
    for value, tensor in zip(region.outputs, wanted, strict=True):
        assert call.values[value].bytes == tensor.numel() * tensor.element_size()
    assert_plausible(call)
    assert call.arena_bytes >= call.arena_lower_bound >= 0


def test_every_call_is_recorded_in_order():
    arguments = [case.build() for case in CASES[:4]]
    with runtime.recording() as calls:
        for args in [*arguments, arguments[0]]:
            run(args)
    assert [c.program for c in calls] == [a[2] for a in [*arguments, arguments[0]]]


def test_off_by_default_and_afterwards():
    args = IMAGE.build()
    run(args)
    with runtime.recording() as calls:
        pass
    run(args)
    assert calls == []
    with runtime.recording() as calls, pytest.raises(RuntimeError, match="expected 1 inputs"):
        run(([], *args[1:]))
    assert calls == []


def test_an_error_in_the_block_ends_the_recording():
    args = IMAGE.build()
    with pytest.raises(KeyError), runtime.recording() as calls:
        run(args)
        raise KeyError
    assert len(calls) == 1
    with runtime.recording() as calls:
        run(args)
    assert len(calls) == 1


def test_recording_twice_is_refused_and_leaves_the_first():
    args = IMAGE.build()
    with runtime.recording() as calls:
        with pytest.raises(RuntimeError, match="expected a thread that does not record"):
            runtime.recording().__enter__()
        run(args)
    assert len(calls) == 1


def test_callers_record_their_own_calls(threads):
    """Two threads record, two more only call."""
    threads(2)
    arguments = [case.build() for case in CASES[:4]]
    wanted = [run(args) for args in arguments]
    found: dict[int, list] = {}
    wrong = []

    def call(index):
        def calls():
            for _ in range(20 + index):
                got = run(arguments[index])
                if not all(map(torch.equal, got, wanted[index])):
                    wrong.append(index)

        if index % 2:
            return calls()
        with runtime.recording() as recorded:
            calls()
        found[index] = recorded

    callers = [threading.Thread(target=call, args=(i,)) for i in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong
    for index in (0, 2):
        assert {c.program for c in found[index]} == {arguments[index][2]}
        assert len(found[index]) == 20 + index


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("batch", [16, 33])
def test_slices_are_one_call(batch, count, threads):
    """Steps have the time of the whole batch: what its slices took, as a mean over the threads."""
    threads(count)
    _, packed, program = IMAGE.build()
    x = torch.randn(batch, 3, 400, 300, generator=torch.Generator().manual_seed(0))
    args = [x], packed, program
    wanted = run(args)
    with runtime.recording() as calls:
        got = run(args)
    for value, before in zip(got, wanted, strict=True):
        assert_equal(value, before)
    (call,) = calls
    assert call.slices > 1
    assert call.values[0].shape == tuple(x.shape)
    assert call.values[Region.from_text(program).outputs[0]].shape == tuple(wanted[0].shape)
    assert_plausible(call)


def test_work_of_a_step():
    dense = Step("int8_conv2d", 1, (0,), (3, 8, (3, 5), (1, 1), (1, 1), (1, 1), 2, False))
    assert multiply_adds(dense, (2, 4, 9, 9), (2, 8, 9, 7)) == 2 * 8 * 9 * 7 * (4 // 2) * 15
    depthwise = Step("int8_depthwise_conv2d", 1, (0,), (0, (3, 3), *[(1, 1)] * 3, False))
    assert multiply_adds(depthwise, (1, 6, 4, 4), (1, 6, 4, 4)) == 6 * 16 * 9
    linear = Step("int8_linear", 1, (0,), (2, 10, True))
    assert multiply_adds(linear, (5, 32), (5, 10)) == 5 * 10 * 32
    assert multiply_adds(Step("flatten", 1, (0,)), (1, 2, 3, 4), (1, 24)) == 0
    assert (buffers_of(dense), buffers_of(linear)) == ((3,), (2,))
    add = [0.5, 1, 0.5, 1, 1, 0, 255]
    assert buffers_of(Step("int8_add", 2, (0, 1), (*add, 4))) == (4,)
    assert buffers_of(Step("int8_add", 2, (0, 1), (*add, -1))) == ()


def test_multiply_adds_are_those_of_the_references():
    """Counted with the packed weight's own sizes."""
    inputs, packed, program = IMAGE.build()
    region = Region.from_text(program)
    references = {op.name: op.reference for op in OPS}
    values = dict(enumerate(inputs))
    layers = 0
    for step in region.steps:
        reads = [values[r] for r in step.reads]
        out = values[step.out] = run_step(step, reads, packed, references)
        count = multiply_adds(step, reads[0].shape, out.shape)
        if step.kind.startswith("int8_") and "conv2d" in step.kind:
            header = read_header(packed[buffers_of(step)[0]])
            each = header.kh * header.kw * header.c_per_group
            assert count == out.numel() * each
            layers += 1
        else:
            assert count == 0
    assert layers == 5


def test_peak(every_isa):
    for name in every_isa:
        runtime.set_isa(name)
        peak = runtime.peak_gops(1)
        assert (peak is None) == (name == "scalar")
        assert peak is None or peak > 1
