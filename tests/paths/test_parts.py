"""What becomes of a captured submodule: calibrated, judged, kept or dropped, and why."""

from __future__ import annotations

import pytest
import torch
from small_detectors import Detector, Head, Levels, convert, images, seeded
from small_models import assert_alike
from torch import nn

import fastinfer
from fastinfer.paths import graph, submodules


def test_without_calibration_the_example_gives_the_scales():
    fast = convert(seeded())
    notes = fastinfer.report(fast).notes
    assert sum("scales from the example only" in note for note in notes) == 1
    assert_alike(seeded()(images()), fast(images()), 20.0)


def test_calibration_is_read_once_and_checked():
    model = seeded()
    fast = convert(model, calibration=((images(1, 16, s), None) for s in range(2)))
    assert not any("example only" in note for note in fastinfer.report(fast).notes)
    with pytest.raises(ValueError, match="batch 1: the model does not run on it: RuntimeError"):
        convert(model, calibration=[(images(),), ([images()[0], images(size=8)[0]],)])
    with pytest.raises(ValueError, match="batch 0 input 0 contains NaN"):
        convert(model, calibration=[([images()[0] * float("nan")],)])
    with pytest.raises(ValueError, match="empty iterable"):
        convert(model, calibration=[])


class Reached(Detector):
    """The head runs on bright images alone."""

    def forward(self, images):
        x = torch.stack(images)
        maps = list(self.backbone(x).values())
        return self.head(maps) if bool(x.mean() < 2) else {"scores": maps}


def test_what_no_batch_reaches_takes_its_scales_from_the_example():
    fast = convert(seeded(Reached), calibration=[([torch.full((3, 16, 16), 3.0)],)])
    notes = fastinfer.report(fast).notes
    assert any(n.startswith("head: no calibration batch reached it") for n in notes)
    assert_alike(seeded(Reached)(images()), fast(images()), 20.0)


def test_a_head_on_every_level_is_one_part():
    model = seeded(Levels)
    fast = convert(model, calibration=[(images(2, 16, s),) for s in range(3)])
    report = fastinfer.report(fast)
    assert [(p.name, p.path, p.calls) for p in report.parts] == [
        ("backbone", "graph", 1), ("head", "graph", 5)
    ]  # fmt: skip
    assert not any("kinds of calls" in note for note in report.notes)
    float_calls = []
    fast.model.head._fallback.module.register_forward_hook(lambda *a: float_calls.append(a))
    for x in (images(1, 16, 7), images(3, 32, 8), images(2, 12, 9)):
        assert_alike(model(x), fast(x), 20.0)
    assert not float_calls


def test_a_part_that_fails_goes_to_the_module_path(monkeypatch):
    lower = graph.lower

    def broken(program):
        if any("head" in name for name in program.plan):
            raise RuntimeError("out of registers")
        return lower(program)

    monkeypatch.setattr(graph, "lower", broken)
    fast = convert(seeded())
    report = fastinfer.report(fast)
    assert [(p.name, p.path) for p in report.parts] == [("backbone", "graph"), ("head", "modules")]
    assert "out of registers" in report.parts[1].reason and "out of registers" in str(report)
    rows = {row.name: row.precision for row in report.layers}
    assert rows["head.conv"] == "int8-dynamic" and rows["backbone.body.0"] == "int8"
    assert type(fast.model.head) is Head
    assert_alike(seeded()(images()), fast(images()), 20.0)


def test_a_slower_part_stays_as_it_is(monkeypatch):
    time_whole = submodules.time_whole

    def timed(models, *calls):
        times = time_whole(models, *calls)
        slow = isinstance(models["original"], Head)
        return {"original": times["original"], "converted": times["original"] * (2 if slow else 0)}

    monkeypatch.setattr(submodules, "time_whole", timed)
    monkeypatch.setattr("fastinfer.api.loses", lambda times, config: False)
    report = fastinfer.report(fast := convert(seeded(), config="auto"))
    assert [p.path for p in report.parts] == ["graph", "original"]
    assert "float is faster" in report.parts[1].reason
    rows = {row.name: row for row in report.layers}
    assert rows["head.conv"].precision == "fp32" and "float is faster" in rows["head.conv"].reason
    assert type(fast.model.head) is Head and type(fast.model.head.conv) is nn.Conv2d
    assert {r.part for r in report.regions} == {"backbone"}


class Asks(Detector):
    """Asks for its parameters, of which none is left, before it uses its parts."""

    def __init__(self):
        super().__init__()
        del self.box
        self.watched = []

    def forward(self, images):
        device = next(self.parameters()).device
        scores = self.head(list(self.backbone(torch.stack(images)).values()))["scores"][0]
        return scores.to(device)[scores.sum(1) < 1e9] if bool(scores.sum() < 1e9) else scores


def test_code_that_does_not_get_on_with_the_parts_keeps_its_own():
    fast = convert(seeded(Asks))
    report = fastinfer.report(fast)
    assert report.path in ("modules", "original")
    assert all(p.path != "graph" and p.reason for p in report.parts)
    assert_alike(seeded(Asks)(images()), fast(images()), 20.0)


def test_ignored_layers_stay_float():
    config = fastinfer.Config("int8", ignore=("head.*", "backbone.body.1.a"))
    report = fastinfer.report(convert(seeded(), config=config))
    assert [p.name for p in report.parts] == ["backbone"]
    kept = {row.name for row in report.layers if row.precision == "fp32"}
    assert kept == {"backbone.body.1.a", "head.conv", "head.score"}


@pytest.mark.parametrize("config", ["int8-dynamic", "int8-weight-only", "bf16", "fp32"])
def test_other_precisions(config):
    fast = convert(seeded(), config=config)
    report = fastinfer.report(fast)
    assert report.path == "submodules"
    assert {row.precision for row in report.layers} == {config}
    assert_alike(seeded()(images()), fast(images()), 80.0 if config == "fp32" else 20.0)


def test_accuracy_is_judged_on_the_whole():
    model = seeded()
    x = images(2, seed=7)
    exact, asked = model(x)["all"], []

    def closeness(candidate):
        asked.append(candidate)
        return -float((candidate(x)["all"] - exact).abs().max())

    fast = convert(model, evaluate=closeness, max_drop=1e-6)
    report = fastinfer.report(fast)
    assert closeness(fast) >= -1e-6
    assert asked.count(model) == 1
    kept = {row.name: row for row in report.layers if row.precision == "fp32"}
    assert "evaluate drops" in kept["backbone.body.0"].reason
    loose = fastinfer.report(convert(model, evaluate=closeness, max_drop=10.0))
    assert not loose.fallbacks


def test_accuracy_is_judged_on_the_module_path_too():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(8, 8)

        def forward(self, x):
            return self.a(x) if bool(x.sum() < 1e9) else x

    torch.manual_seed(0)
    model, x = Branches().eval(), torch.randn(4, 8)
    exact = model(x)

    def closeness(candidate):
        return -float((candidate(x) - exact).abs().max())

    fast = fastinfer.convert(model, x, config="int8", evaluate=closeness, max_drop=1e-9)
    assert fastinfer.report(fast).path == "modules" and closeness(fast) == 0
    assert "evaluate drops" in fastinfer.report(fast).layers[0].reason


def test_an_example_the_model_does_not_take_is_an_error():
    with pytest.raises(ValueError, match="does not run on example_inputs: KeyError"):
        fastinfer.convert(Fails().eval(), torch.ones(2, 3))


class Fails(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(3, 3), nn.ReLU())

    def forward(self, x):
        return self.inner({}["absent"])


class Catches(nn.Module):
    """Its own code handles what a submodule raises."""

    def __init__(self):
        super().__init__()
        self.inner = Inner()

    def forward(self, x):
        try:
            y = self.inner(x)
        except KeyError:
            return x * 0
        return y if bool(y.sum() < 1e9) else x


class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 6)

    def forward(self, x):
        if x.shape[1] != 6:
            raise KeyError(x.shape[1])
        return torch.relu(self.linear(x))


def test_exceptions_are_the_originals():
    torch.manual_seed(0)
    model, x = Catches().eval(), torch.randn(3, 6)
    fast = fastinfer.convert(model, x, config="int8")
    assert fastinfer.report(fast).path == "submodules"
    assert_alike(model(x), fast(x), 20.0)
    assert torch.equal(fast(torch.ones(2, 5)), torch.zeros(2, 5))
