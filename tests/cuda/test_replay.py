"""Calls of a converted model on a GPU, replayed as CUDA graphs or, where they cannot be, not."""

from __future__ import annotations

import copy
import threading

import pytest
import torch
from converted_on_gpu import assert_replayed, converted, wanted
from cuda_library import need_gpu
from cuda_models import example, make

import fastinfer
from fastinfer.engine import CudaRecorder, cuda_graphs, cuda_recorder
from fastinfer.engine.cuda_graphs import NotRecordedError
from fastinfer.measure import sqnr_db

need_gpu("nothing is replayed")


def test_the_second_call_of_a_shape_is_recorded():
    fast, x = converted("plain"), example("plain", 7).cuda()
    assert len(fast._graphs) == 0
    first = fast(x)
    assert len(fast._graphs) == 0
    second = fast(x)
    assert_replayed(fast)
    assert torch.equal(first, second)


def test_an_answer_is_not_overwritten():
    fast, x = converted("plain"), example("plain", 2).cuda()
    fast(x), fast(x)
    one = fast(x)
    kept = one.clone()
    other = fast(x.neg())
    assert torch.equal(one, kept) and not torch.equal(one, other)
    assert one.data_ptr() != other.data_ptr()


def test_no_wait_and_no_new_memory():
    fast, x = converted("plain"), example("plain", 2).cuda()
    fast(x), fast(x), fast(x)
    assert_replayed(fast)
    torch.cuda.synchronize()
    before = torch.cuda.memory_stats()["segment.all.allocated"]
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(20):
            y = fast(x)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.cuda.memory_stats()["segment.all.allocated"] == before
    assert torch.equal(y.cpu(), wanted("plain", x))


def test_every_memory_order():
    fast, x = converted("plain"), example("plain", 2).cuda()
    orders = (
        x,
        x.contiguous(memory_format=torch.channels_last),
        torch.cat([x, x], 3)[..., ::2].contiguous()[..., :32],
        x.transpose(2, 3).contiguous().transpose(2, 3),
        torch.stack([x, x], -1)[..., 0],
    )
    for one in orders:
        want = wanted("plain", one.cpu().contiguous())
        for _ in range(3):
            assert torch.equal(fast(one).cpu(), want)


def test_an_empty_batch():
    fast, x = converted("plain"), example("plain", 1).cuda()
    for _ in range(3):
        assert fast(x[:0]).shape == (0, 10)


def test_more_shapes_than_are_kept(monkeypatch):
    monkeypatch.setattr(cuda_graphs, "MAX_GRAPHS", 3)
    fast = converted("plain")
    for _ in range(2):
        for batch in range(1, 7):
            x = example("plain", batch)
            for _ in range(2):
                assert torch.equal(fast(x.cuda()).cpu(), wanted("plain", x))
    assert len(fast._graphs) == 3


def test_threads_with_streams_of_their_own():
    fast = converted("plain")
    cases = [example("plain", batch) for batch in (1, 2, 3)]
    wants = [wanted("plain", x) for x in cases]
    wrong = []

    def work(number):
        try:
            stream = torch.cuda.Stream() if number % 2 else torch.cuda.current_stream()
            with torch.cuda.stream(stream):
                for turn in range(15):
                    index = (number + turn) % len(cases)
                    x = cases[index].cuda()
                    if not torch.equal(fast(x).cpu(), wants[index]):
                        wrong.append((number, turn))
        except Exception as error:  # of a thread
            wrong.append((number, error))

    workers = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_streams_that_are_busy():
    """One model replayed on two streams that nothing else orders."""
    fast = converted("plain")
    xs = [example("plain", 4).cuda(), example("plain", 4).cuda().neg()]
    wants = [wanted("plain", x) for x in xs]
    fast(xs[0]), fast(xs[0])
    assert_replayed(fast)
    streams = [torch.cuda.Stream() for _ in xs]
    torch.cuda.synchronize()
    busy = torch.randn(2048, 2048, device="cuda")
    answers = [[], []]
    for turn in range(20):
        for index, stream in enumerate(streams):
            with torch.cuda.stream(stream):
                if turn % 3 == index:
                    busy @ busy
                answers[index].append(fast(xs[index]))
    torch.cuda.synchronize()
    for index, want in enumerate(wants):
        assert all(torch.equal(answer.cpu(), want) for answer in answers[index])


def test_two_models_share_what_lies_between():
    one, other = converted("plain"), converted("plain")
    x = example("plain", 3)
    for _ in range(3):
        first, second = one(x.cuda()), other(x.cuda())
    for answer in (first, second):
        assert torch.equal(answer.cpu(), wanted("plain", x))
    del one
    assert torch.equal(other(x.cuda()).cpu(), wanted("plain", x))


def test_inside_a_capture_of_the_users():
    fast, x = converted("plain"), example("plain", 5).cuda()
    fast(x), fast(x)
    assert_replayed(fast)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = fast(x)
    x.copy_(example("plain", 5).cuda().neg())
    graph.replay()
    assert torch.equal(y.cpu(), wanted("plain", x))


def test_out_of_memory_while_recording(monkeypatch):
    fast, x = converted("plain"), example("plain", 6)

    def full(*args):
        raise torch.OutOfMemoryError("CUDA out of memory. (simulated)")

    with monkeypatch.context() as patch:
        patch.setattr(cuda_recorder, "_capture", full)
        for _ in range(3):
            assert torch.equal(fast(x.cuda()).cpu(), wanted("plain", x))
    assert len(fast._graphs) == 0
    assert any("out of memory" in note for note in fastinfer.report(fast).notes)
    smaller = example("plain", 2)
    for _ in range(3):
        assert torch.equal(fast(smaller.cuda()).cpu(), wanted("plain", smaller))
    assert_replayed(fast)


def test_what_cannot_be_captured():
    """A capture that a wait breaks leaves torch as it was."""
    x = torch.ones(64, device="cuda")
    for _ in range(2):
        with pytest.raises(NotRecordedError):
            CudaRecorder().record(lambda a: [a * float(a.sum())], [x])
        assert torch.rand(4, device="cuda").sum() > 0  # the generator is free again
    assert not torch.cuda.is_current_stream_capturing()
    recording = CudaRecorder().record(lambda a: [a * 2, 7], [x])
    doubled, seven = recording.replay([x * 3])
    assert seven == 7 and torch.equal(doubled, x * 6)
    y = torch.empty(1 << 22, device="cuda").zero_()
    del y
    torch.cuda.empty_cache()
    torch.cuda.synchronize()


def test_a_float_part_that_waits():
    model, x = make("waiting").cuda(), example("waiting").cuda()
    fast = fastinfer.convert(model, x, config="int8")
    with torch.no_grad():
        reference = model(x)
    for _ in range(3):
        assert sqnr_db(reference, fast(x)) > 20
    graphs = getattr(fast, "_graphs", None)
    assert graphs is None or len(graphs) == 0


def test_state_dict_goes_both_ways():
    fast, x = converted("plain"), example("plain")
    at_home = copy.deepcopy(fast).cpu()
    state = {key: value.cpu() for key, value in fast.state_dict().items()}
    at_home.load_state_dict(state)
    assert torch.equal(at_home(x), wanted("plain", x))
    for key, value in state.items():
        if key.endswith("fc.bias"):
            value += 1000
    fast(x.cuda()), fast(x.cuda())
    fast.load_state_dict(state)
    at_home.load_state_dict(state)
    assert not torch.equal(at_home(x), wanted("plain", x))
    for _ in range(2):
        assert torch.equal(fast(x.cuda()).cpu(), at_home(x))


def test_hooks_see_their_calls():
    fast, x = converted("plain"), example("plain").cuda()
    fast(x), fast(x)
    seen = []
    handle = fast.lowered.fc.register_forward_hook(lambda *args: seen.append(1))
    fast(x), fast(x)
    handle.remove()
    assert len(seen) == 2
    fast(x)
    assert len(seen) == 2


def test_modes_of_autograd():
    fast, x = converted("plain"), example("plain")
    with torch.inference_mode():
        for _ in range(3):
            fast(x.cuda())
    assert torch.equal(fast(x.cuda()).cpu(), wanted("plain", x))
    y = fast(x.cuda().requires_grad_())
    assert torch.equal(y.detach().cpu(), wanted("plain", x))
    with pytest.raises(RuntimeError, match="is for inference and has no gradient"):
        y.sum().backward()


def test_tools_that_trace_see_the_ops():
    fast, x = converted("plain"), example("plain")
    fast(x.cuda()), fast(x.cuda())
    exported = torch.export.export(fast, (x.cuda(),)).module()
    compiled = torch.compile(fast, backend="eager")
    for tool in (exported, compiled):
        assert torch.equal(tool(x.cuda()).cpu(), wanted("plain", x))
