"""The order of what a recorder asks of CUDA; torch.cuda is pretended, values are computed here."""

from __future__ import annotations

import contextlib
import threading

import pytest
import torch

from fastinfer.engine import CudaRecorder, cuda_recorder
from fastinfer.engine.cuda_graphs import NotRecordedError

CPU = torch.device("cpu")


class Cuda:
    """Logs what is asked of it. A graph's replay computes what was captured, in place."""

    def __init__(self):
        self.log, self.stack, self.capturing, self.fails_to_end = [], [], None, False
        self.streams, self.pools = 0, 0
        self.here = self.Stream()

    def Stream(self, device=None):
        cuda, number = self, self.streams
        self.streams += 1

        class Stream:
            cuda_stream = number

            def wait_event(self, event):
                cuda.log.append(f"{number} waits for the event")

            def wait_stream(self, other):
                cuda.log.append(f"{number} waits for {other.cuda_stream}")

            def synchronize(self):
                cuda.log.append(f"sync {number}")

        return Stream()

    def Event(self):
        cuda = self

        class Event:
            def record(self, stream):
                cuda.log.append(f"event on {stream.cuda_stream}")

        return Event()

    def CUDAGraph(self):
        cuda = self

        class Graph:
            def capture_begin(self, pool=None, capture_error_mode="global"):
                assert capture_error_mode == "thread_local" and cuda.capturing is None
                cuda.capturing = self
                cuda.log.append("capture")

            def capture_end(self):
                cuda.capturing = None
                cuda.log.append("captured")
                if cuda.fails_to_end:
                    cuda.fails_to_end = False
                    raise RuntimeError("capture was invalidated\nand more")

            def replay(self):
                cuda.log.append("replay")

        return Graph()

    @contextlib.contextmanager
    def stream(self, stream):
        self.stack.append(stream)
        try:
            yield
        finally:
            self.stack.pop()

    def current_stream(self, device=None):
        return self.stack[-1] if self.stack else self.here

    def graph_pool_handle(self):
        self.pools += 1
        return (0, self.pools)


@pytest.fixture
def cuda(monkeypatch):
    pretended = Cuda()
    for name in ("Stream", "Event", "CUDAGraph", "stream", "current_stream", "graph_pool_handle"):
        monkeypatch.setattr(torch.cuda, name, getattr(pretended, name))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: None)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: pretended.log.append("cache emptied"))
    shared = cuda_recorder._Device(CPU)
    monkeypatch.setattr(cuda_recorder, "_shared", lambda device: shared)
    pretended.shared = shared
    return pretended


def twice(x):
    return [x * 2, 7]


def test_a_recording_and_its_replays(cuda):
    x = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    recording = CudaRecorder().record(twice, [x])
    assert cuda.log == [
        "1 waits for 0", "sync 1", "event on 1", "capture", "captured",
    ]  # fmt: skip
    assert recording._inputs[0].stride() == x.stride()
    assert recording._inputs[0].data_ptr() != x.data_ptr()
    cuda.log.clear()
    one, seven = recording.replay([x + 1])
    assert cuda.log == ["0 waits for the event", "replay", "event on 0"]
    assert seven == 7 and one.data_ptr() != recording._outputs[0].data_ptr()
    assert torch.equal(recording._inputs[0], x + 1)
    cuda.log.clear()
    recording.replay([x])
    assert cuda.log == ["replay", "event on 0"]  # the same stream is in order by itself
    cuda.log.clear()
    with cuda.stream(cuda.Stream()):
        recording.replay([x])
        recording.run()
    assert cuda.log == [
        "2 waits for the event", "replay", "event on 2", "replay", "event on 2",
    ]  # fmt: skip


def test_graphs_of_two_models_are_in_one_order(cuda):
    first = CudaRecorder().record(twice, [torch.ones(2)])
    second = CudaRecorder().record(twice, [torch.ones(3)])
    first.replay([torch.ones(2)])
    cuda.log.clear()
    with cuda.stream(cuda.Stream()):
        second.replay([torch.ones(3)])
    assert cuda.log[0] == "2 waits for the event"
    cuda.log.clear()
    CudaRecorder().record(twice, [torch.ones(4)])  # its warm-up uses what replays write
    assert cuda.log[0] == "1 waits for the event"


def test_inference_mode_is_not_recorded(cuda):
    with torch.inference_mode():
        x = torch.ones(3)
        recording = CudaRecorder().record(twice, [x])
        answer, _ = recording.replay([x])
    assert answer.is_inference() and not recording._inputs[0].is_inference()
    recording.replay([torch.ones(3)])


def test_what_breaks_a_capture(cuda):
    calls = []

    def waiting(x):
        calls.append(1)
        if cuda.capturing is not None:
            cuda.fails_to_end = True
            raise RuntimeError("operation not permitted when stream is capturing\nmore")
        return [x]

    pool = cuda.shared.pool
    with pytest.raises(NotRecordedError, match="RuntimeError: operation not permitted") as caught:
        CudaRecorder().record(waiting, [torch.ones(2)])
    assert caught.value.is_lasting and "more" not in str(caught.value)
    assert len(calls) == cuda_recorder.WARM_UP + 1
    assert cuda.capturing is None and not cuda.stack and not cuda.shared.lock.locked()
    assert cuda.shared.pool != pool
    assert cuda.log[-2:] == ["capture", "captured"]  # one that ends well
    CudaRecorder().record(twice, [torch.ones(2)])


def test_a_capture_that_only_fails_to_end(cuda):
    def quietly(x):
        cuda.fails_to_end = cuda.capturing is not None
        return [x]

    with pytest.raises(NotRecordedError, match=r"RuntimeError: capture was invalidated$"):
        CudaRecorder().record(quietly, [torch.ones(2)])


@pytest.mark.parametrize("is_capturing", [True, False])
def test_out_of_memory(cuda, is_capturing):
    tries = []

    def large(x):
        if (cuda.capturing is not None) == is_capturing:
            tries.append(1)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to\nallocate")
        return [x]

    with pytest.raises(NotRecordedError, match=r"inputs \[2, 5\]: CUDA out of memory") as caught:
        CudaRecorder().record(large, [torch.ones(2, 5)])
    assert not caught.value.is_lasting
    assert len(tries) == 2 and cuda.log.count("cache emptied") == 1
    assert cuda.capturing is None and not cuda.stack and not cuda.shared.lock.locked()
    CudaRecorder().record(twice, [torch.ones(2)])


def test_memory_that_the_cache_had(cuda):
    def large(x):
        if "cache emptied" not in cuda.log:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return [x]

    assert CudaRecorder().record(large, [torch.ones(2)]).replay([torch.ones(2)])


def test_errors_of_the_model_are_its_own(cuda):
    def broken(x):
        raise IndexError("index out of range")

    with pytest.raises(IndexError):
        CudaRecorder().record(broken, [torch.ones(2)])
    assert not cuda.shared.lock.locked() and not cuda.stack


def test_when_nothing_is_recorded(cuda, monkeypatch):
    recorder = CudaRecorder()
    assert recorder.is_recordable(CPU)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "is_autocast_enabled", lambda device_type: device_type == "cuda")
        assert not recorder.is_recordable(CPU)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert not recorder.is_recordable(CPU)


def test_one_device_object_for_all_threads(cuda, monkeypatch):
    monkeypatch.undo()
    made = []

    class Made:
        def __init__(self, device):
            made.append(device)

    monkeypatch.setattr(cuda_recorder, "_Device", Made)
    monkeypatch.setattr(cuda_recorder, "_devices", {})
    found = []

    def work():
        found.append(cuda_recorder._shared(torch.device("cuda", 1)))

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(set(map(id, found))) == 1
