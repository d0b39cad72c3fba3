"""Layers on a GPU race as replays, by events; torch.cuda is pretended."""

from __future__ import annotations

import contextlib
import importlib

import pytest
import torch
from torch import nn

from fastinfer.config import Config
from fastinfer.engine.cuda_graphs import NotRecordedError
from fastinfer.graph.layer import Layer, LayerSpec
from fastinfer.measure import latency
from fastinfer.program import LayerPlan
from fastinfer.report import Report
from fastinfer.tune import choose_modules, gpu_race, time_whole
from fastinfer.tune.gpu_race import BURST, ROUNDS, gpu_race_ms
from fastinfer.types.folded import KnownWeights

GPU = torch.device("cuda:0")
CHOOSE = importlib.import_module("fastinfer.tune.choose")
MODULES = importlib.import_module("fastinfer.tune.modules")


class Clock:
    """Calls take as many milliseconds as they add to it."""

    def __init__(self):
        self.now, self.log = 0.0, []

    def takes(self, name, ms):
        def call():
            self.log.append(name)
            self.now += ms

        return call

    def event(self, enable_timing=False):
        clock = self

        class Event:
            def record(self):
                self.at = clock.now

            def synchronize(self):
                pass

            def elapsed_time(self, end):
                return end.at - self.at

        return Event()


class Recorder:
    """Records what runs a call; device: must be the GPU."""

    fails = False

    def record(self, function, inputs, device):
        assert device == GPU and inputs == ()
        if self.fails:
            raise NotRecordedError("it waits", is_lasting=True)

        class Recording:
            run = staticmethod(function)

        return Recording()


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(torch.cuda, "Event", made.event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(gpu_race, "CudaRecorder", Recorder)
    monkeypatch.setattr(Recorder, "fails", False)
    return made


def test_replays_are_of_several_calls(clock):
    calls = [clock.takes("float", 0.3), clock.takes("fast", 0.2)]
    assert gpu_race_ms(calls, GPU, replayed=True) == pytest.approx([0.3, 0.2])
    one_round = ["float"] * BURST + ["fast"] * BURST
    assert clock.log == ["float", "fast"] * 2 + one_round * (ROUNDS + 1)


def test_what_is_not_recorded_runs_as_it_is(clock, monkeypatch):
    calls = [clock.takes("float", 0.3), clock.takes("fast", 0.2)]
    assert gpu_race_ms(calls, GPU, replayed=False) == pytest.approx([0.3, 0.2])
    assert clock.log.count("fast") == ROUNDS + 2
    monkeypatch.setattr(Recorder, "fails", True)
    assert gpu_race_ms(calls, GPU, replayed=True) == pytest.approx([0.3, 0.2])
    assert clock.log.count("fast") == 2 * (ROUNDS + 2) + 1


def test_long_calls_run_less_often(clock):
    calls = [clock.takes("float", 3.0), clock.takes("fast", 0.4)]
    assert gpu_race_ms(calls, GPU, replayed=True) == pytest.approx([3.0, 0.4])
    assert clock.log == ["float", "fast"] * (2 + gpu_race.LONG_ROUNDS)


def test_a_layer_pays_for_its_border(monkeypatch):
    """A layer of a GPU is raced with what quantizes its input."""
    seen = []

    def race(calls, device, *, replayed):
        seen.append((len(calls), device.type, replayed))
        return [5.0, 1.0, 0.5][: len(calls)]

    monkeypatch.setattr(CHOOSE, "gpu_race_ms", race)
    layer = Layer(LayerSpec("linear", 4, 4), torch.ones(4, 4), None)
    monkeypatch.setattr(CHOOSE, "lower_layer", lambda *args: layer)
    weight = _On(layer.weight, GPU)
    monkeypatch.setattr(CHOOSE, "layer_inputs", lambda *args, **kwargs: [torch.ones(1, 4)])
    monkeypatch.setattr(CHOOSE, "_device_of", lambda layer: weight.device)
    from fastinfer.types import TensorQuant

    plan = LayerPlan("int8", input=TensorQuant((0.1,), 0))
    for bordered, want in ((True, (5.0, 1.5)), (False, (5.0, 1.0))):
        got = CHOOSE._time_layer(layer, plan, ((1, 4),), bordered, KnownWeights())
        assert got == want
    assert seen == [(3, "cuda", True), (2, "cuda", True)]


class _On:
    def __init__(self, tensor, device):
        self.tensor, self.device = tensor, device


def test_whole_models_are_timed_by_events(clock, monkeypatch):
    monkeypatch.setattr(importlib.import_module("fastinfer.tune.whole"), "device_of", lambda _: GPU)
    models = {"original": clock.takes("original", 3.0), "converted": clock.takes("converted", 1.0)}
    calls = {name: lambda x, call=call: call() for name, call in models.items()}
    times = time_whole(calls, ((torch.ones(1),), {}))
    assert times == pytest.approx({"original": 3.0, "converted": 1.0})
    # Before the first that counts: those that choose kernels and record.
    assert clock.log[:4] == ["original"] * 4


def test_where_the_work_is():
    assert latency.device_of([torch.ones(1)]) is None
    assert latency.device_of([]) is None
    assert latency.device_of([_On(None, torch.device("cpu")), _On(None, GPU)]) == GPU
    with latency.on_device(None), latency.on_device(torch.device("cpu")):
        pass


def test_module_path_on_a_cpu_is_timed_as_before(monkeypatch):
    monkeypatch.setattr(MODULES, "gpu_race_ms", None)
    monkeypatch.setattr(MODULES, "race_ms", lambda *args: (2.0, 1.0))
    model = nn.Sequential(nn.Linear(8, 8)).eval()
    report = Report()
    choose_modules(model, Config(), report, args=(torch.ones(2, 8),))
    assert report.layers[0].fast_ms == 1.0
