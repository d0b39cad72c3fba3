"""Which calls are recorded and replayed: keys, the second call, the bound, fallbacks; no GPU."""

from __future__ import annotations

import copy
import threading
import warnings

import pytest
import torch
from torch import nn

import fastinfer
from fastinfer.engine import cuda_graphs
from fastinfer.engine.cuda_graphs import CudaGraphs, NotRecordedError
from fastinfer.engine.recordable import why_not_recordable


class Recording:
    """Computes anew what was recorded, on inputs of its own."""

    def __init__(self, function, inputs):
        self.function, self.inputs, self.replays = function, inputs, 0

    def replay(self, inputs):
        self.replays += 1
        for mine, given in zip(self.inputs, inputs, strict=True):
            mine.copy_(given)
        with torch.no_grad():
            return tuple(value.clone() for value in self.function(*self.inputs))


class Recorder:
    device_type = "cpu"

    def __init__(self):
        self.made, self.fails, self.reason, self.is_free = [], None, "", True

    def __deepcopy__(self, memo):
        return self

    def is_recordable(self, device):
        return self.is_free

    def why_not(self, graph_module):
        return self.reason

    def record(self, function, inputs):
        if self.fails is not None:
            raise self.fails
        with torch.inference_mode(False):
            self.made.append(Recording(function, [cuda_graphs.empty_for(x) for x in inputs]))
        return self.made[-1]

    @property
    def replays(self):
        return sum(one.replays for one in self.made)


@pytest.fixture(scope="module")
def whole():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten())
    return fastinfer.convert(model.eval(), torch.randn(2, 3, 12, 12), config="int8")


@pytest.fixture
def fast(whole):
    """Return a converted model that replays calls on the CPU, and the recorder it has."""
    copied = copy.deepcopy(whole)
    recorder = Recorder()
    copied._graphs = CudaGraphs(copied._report.note, recorder)
    copied._set_device(copied._call)
    return copied, recorder


def images(batch=2, size=12):
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(batch + size))


def notes(fast):
    return [note for note in fastinfer.report(fast).notes if "no CUDA graph" in note]


def test_the_first_call_runs_the_ops_and_the_second_is_recorded(whole, fast):
    fast, recorder = fast
    for calls, made, replays in ((1, 0, 0), (2, 1, 1), (3, 1, 2)):
        assert torch.equal(fast(images()), whole(images()))
        assert (len(recorder.made), recorder.replays) == (made, replays), calls
    assert fast.is_replayed and not whole.is_replayed


def test_what_makes_another_recording(whole, fast):
    fast, recorder = fast
    x = images()
    cases = [
        x,
        images(3),
        images(2, 14),
        x.contiguous(memory_format=torch.channels_last),
    ]
    for index, case in enumerate(cases):
        for _ in range(3):
            assert torch.equal(fast(case), whole(case.contiguous()))
        assert len(recorder.made) == index + 1
    # These have the first one's shape in an order that is made contiguous.
    for other in (x.flip(2), x.transpose(2, 3), torch.stack([x, x], -1)[..., 1]):
        assert torch.equal(fast(other), whole(other.contiguous()))
    assert len(recorder.made) == len(cases)


def test_an_answer_is_not_overwritten(fast):
    fast, _ = fast
    fast(images()), fast(images())
    one = fast(images())
    kept = one.clone()
    fast(images().neg())
    assert torch.equal(one, kept)


def test_least_recently_used_goes(whole, fast, monkeypatch):
    monkeypatch.setattr(cuda_graphs, "MAX_GRAPHS", 2)
    fast, recorder = fast
    for batch in (1, 2, 1, 2, 1, 3, 3):  # 2 goes for 3
        fast(images(batch))
    assert [r.inputs[0].shape[0] for r in recorder.made] == [1, 2, 3]
    fast(images(1))
    assert len(recorder.made) == 3
    assert torch.equal(fast(images(2)), whole(images(2)))  # it came twice before
    assert len(recorder.made) == 4 and len(fast._graphs) == 2


def test_shapes_seen_once_are_bounded(fast, monkeypatch):
    monkeypatch.setattr(cuda_graphs, "MAX_SEEN", 3)
    fast, recorder = fast
    for batch in (1, 2, 3, 4, 1):
        fast(images(batch))
    assert len(fast._graphs._seen) == 3
    assert not recorder.made


def test_a_lasting_reason_is_said_once(whole, fast):
    fast, recorder = fast
    recorder.fails = NotRecordedError("it waits", is_lasting=True)
    for batch in (2, 2, 2, 3, 3):
        assert torch.equal(fast(images(batch)), whole(images(batch)))
    recorder.fails = None
    fast(images()), fast(images())
    assert not recorder.made
    assert notes(fast) == ["no CUDA graph, the ops run one by one: it waits"]


def test_what_is_known_before_is_not_tried(whole, fast):
    fast, recorder = fast
    recorder.reason = "node: no kernel"
    recorder.fails = AssertionError("it was tried")
    for _ in range(3):
        assert torch.equal(fast(images()), whole(images()))
    assert notes(fast) == ["no CUDA graph, the ops run one by one: node: no kernel"]


def test_out_of_memory_is_of_one_shape(whole, fast):
    fast, recorder = fast
    recorder.fails = NotRecordedError("out of memory", is_lasting=False)
    for _ in range(3):
        assert torch.equal(fast(images()), whole(images()))
    recorder.fails = None
    for _ in range(3):
        assert torch.equal(fast(images(1)), whole(images(1)))
        assert torch.equal(fast(images()), whole(images()))
    assert [r.inputs[0].shape[0] for r in recorder.made] == [1]
    assert len(notes(fast)) == 1


def test_somebody_elses_capture(whole, fast):
    fast, recorder = fast
    fast(images()), fast(images())
    recorder.is_free = False
    assert torch.equal(fast(images()), whole(images()))
    assert recorder.replays == 1
    recorder.is_free = True
    fast(images())
    assert recorder.replays == 2


def test_empty_batches_run_the_ops(fast):
    fast, recorder = fast
    for _ in range(3):
        assert fast(images()[:0]).shape[0] == 0
    assert not recorder.made


def test_hooks_see_their_calls(whole, fast):
    fast, recorder = fast
    fast(images()), fast(images())
    seen = []
    layer = fast.lowered.get_submodule("0")
    handle = layer.register_forward_hook(lambda *args: seen.append(1))
    for _ in range(3):
        assert torch.equal(fast(images()), whole(images()))
    assert len(seen) == 3 and recorder.replays == 1
    handle.remove()
    fast(images())
    assert len(seen) == 3 and recorder.replays == 2


def test_other_tensors_are_recorded_anew(fast):
    fast, recorder = fast
    fast(images()), fast(images())
    before = fast(images())
    state = {k: v.clone() for k, v in fast.state_dict().items()}
    state["lowered.0.bias"] += 1000
    fast.load_state_dict(state)
    after = fast(images())
    assert not torch.equal(before, after)
    assert torch.equal(after, copy.deepcopy(fast)(images()))
    assert len(recorder.made) == 2


def test_copies_have_recordings_and_reports_of_their_own(fast):
    fast, recorder = fast
    fast(images()), fast(images())
    copied = copy.deepcopy(fast)
    assert len(copied._graphs) == 0
    recorder.fails = NotRecordedError("it waits", is_lasting=True)
    copied(images()), copied(images())
    assert notes(copied) and not notes(fast)
    recorder.fails = None
    assert len(fast._graphs) == 1


def test_saved_models_have_no_recordings(fast, tmp_path):
    fast, _ = fast
    fast(images()), fast(images())
    fastinfer.save(fast, tmp_path / "m")
    loaded = fastinfer.load(tmp_path / "m")
    assert torch.equal(loaded(images()), fast(images()))
    assert len(loaded._graphs) == 0


def test_tools_that_trace_see_the_ops(whole, fast):
    fast, recorder = fast
    fast(images()), fast(images())
    exported = torch.export.export(fast, (images(),)).module()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(fast, images(), check_trace=False)
    fake = torch._subclasses.FakeTensorMode(allow_non_fake_inputs=True)
    with fake:
        assert type(fast(fake.from_tensor(images()))).__name__ == "FakeTensor"
    assert recorder.replays == 1
    for tool in (exported, traced):
        assert torch.equal(tool(images()), whole(images()))
    compiled = torch.compile(fast, backend="eager")
    assert torch.equal(compiled(images()), whole(images()))


def test_autograd_and_inference_mode(whole, fast):
    fast, recorder = fast
    with torch.inference_mode():
        for _ in range(3):
            assert fast(images()).is_inference()
    assert torch.equal(fast(images()), whole(images()))
    y = fast(images().requires_grad_())
    with pytest.raises(RuntimeError, match="is for inference and has no gradient"):
        y.sum().backward()
    assert recorder.replays == 4


def test_threads(whole, fast):
    fast, recorder = fast
    wants = {batch: whole(images(batch)) for batch in (1, 2, 3)}
    wrong = []

    def work(number):
        for turn in range(20):
            batch = 1 + (number + turn) % 3
            if not torch.equal(fast(images(batch)), wants[batch]):
                wrong.append((number, turn))

    workers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong
    assert len(recorder.made) == 3


def test_moves_forget_what_was_recorded(fast):
    fast, recorder = fast
    fast(images()), fast(images())
    fast._graphs.clear()
    assert len(fast._graphs) == 0
    fast(images())
    assert len(recorder.made) == 1
    fast(images())
    assert len(recorder.made) == 2


def test_no_recorder_no_recordings(whole):
    assert CudaGraphs(print).device_type == ""
    assert not whole._replays


def test_what_waits_for_the_device(whole):
    graph_module = whole.lowered
    assert why_not_recordable(graph_module, "CPU") == ""
    # No op has a kernel under this key, so the first one is named.
    said = why_not_recordable(graph_module, "Meta" if _has_no_kernel("Meta") else "HPU")
    assert said.endswith("kernel here, and its reference waits for it")

    def waiting(x, mask):
        return x[mask], torch.nonzero(x)

    x, index = torch.randn(4), torch.tensor([0, 2])
    by_mask = torch.export.export(_Of(lambda x, m: x[m]), (x, x > 0)).graph_module
    by_index = torch.export.export(_Of(lambda x, m: x[m]), (x, index)).graph_module
    nonzero = torch.export.export(_Of(lambda x: torch.nonzero(x)), (x,)).graph_module
    assert "needs a value of the device" in why_not_recordable(by_mask, "CPU")
    assert why_not_recordable(by_index, "CPU") == ""
    assert "aten.nonzero.default needs" in why_not_recordable(nonzero, "CPU")


def _has_no_kernel(key):
    return not torch._C._dispatch_has_kernel_for_dispatch_key("fastinfer::quantize", key)


class _Of(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *args):
        return self.function(*args)
