"""choose_modules: leaf layers timed on what they saw in one call; who loses stays float."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fastinfer.config import Config
from fastinfer.nn import Int8LinearDynamic
from fastinfer.report import Report
from fastinfer.tune import choose_modules

AUTO = Config(precision="auto")


class Branching(nn.Module):
    """Layers that one call reaches, and one that it does not."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.other = nn.Linear(8, 16), nn.Linear(16, 12), nn.Linear(16, 12)

    def forward(self, x, flip=False):
        x = self.a(x)
        return self.other(x) if flip else self.b(x)


def swapped(config, **call):
    torch.manual_seed(0)
    report = Report()
    converted = choose_modules(Branching().eval(), config, report, **call)
    return converted, {row.name: row for row in report.layers}


X = torch.ones(2, 8)


def test_a_loser_stays_float_and_says_why(timer):
    timer({12: 3.0})
    converted, rows = swapped(AUTO, args=(X,))
    assert type(converted.a) is Int8LinearDynamic and type(converted.b) is nn.Linear
    assert rows["b"].precision == "fp32"
    assert rows["b"].reason == "float is faster (2.000 against 3.000 ms)"
    assert (rows["a"].float_ms, rows["a"].fast_ms) == (2.0, 1.0)
    # Nothing is known of a layer the example does not reach.
    assert rows["other"].precision == "int8-dynamic" and rows["other"].fast_ms is None


@pytest.mark.parametrize("config", [Config("auto", allow_slower=True), Config("int8-dynamic")])
def test_slower_ones_are_kept_when_asked_for(timer, config):
    timer({12: 3.0})
    converted, rows = swapped(config, args=(X,))
    assert type(converted.b) is Int8LinearDynamic and rows["b"].fast_ms == 3.0


def test_keyword_arguments_reach_the_model(timer):
    timer({12: 3.0})
    _, rows = swapped(AUTO, args=(X,), kwargs={"flip": True})
    assert rows["other"].precision == "fp32" and rows["b"].fast_ms is None


def test_without_an_example_or_a_batch_nothing_is_timed(timer):
    timed = timer().timed
    for call in ({}, {"args": (X[:0],)}):
        _, rows = swapped(AUTO, **call)
        assert {row.precision for row in rows.values()} == {"int8-dynamic"}
    assert not timed


def test_equal_layers_are_timed_once(timer):
    timed = timer().timed
    same = nn.Sequential(*[nn.Linear(8, 8) for _ in range(4)]).eval()
    report = Report()
    choose_modules(same, AUTO, report, args=(X,))
    assert len(timed) == 2
    assert all(row.fast_ms == 1.0 for row in report.layers)


def test_a_layer_that_fails_when_it_is_timed_stays_float(monkeypatch):
    def race_ms(layer, packed, limit_s):
        if layer.func.weight.shape[0] == 12:
            raise RuntimeError("no luck\nat all")
        return 2.0, 1.0

    monkeypatch.setattr("fastinfer.tune.modules.race_ms", race_ms)
    converted, rows = swapped(AUTO, args=(X,))
    assert type(converted.a) is Int8LinearDynamic and type(converted.b) is nn.Linear
    assert rows["b"].reason == "it failed when it was timed: no luck"


def test_timing_leaves_the_generator_as_it_is():
    torch.manual_seed(3)
    model, state = Branching().eval(), torch.get_rng_state()
    choose_modules(model, AUTO, Report(), args=(X,))
    assert torch.equal(torch.get_rng_state(), state)
