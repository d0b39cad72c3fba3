"""choose with a timer that says what the test wants: who loses stays float, and why."""

from __future__ import annotations

import importlib
import itertools
from types import SimpleNamespace

import pytest
import torch
from layer_graph import layer_graph, random_batches
from torch import nn

from fastinfer.compress.quantize import Calibrator, quantize
from fastinfer.config import Config
from fastinfer.graph.layer import Layer
from fastinfer.lower import lower
from fastinfer.testing.compare import sqnr_db
from fastinfer.tune import choose

# The package exports a function of that name.
CHOOSE = importlib.import_module("fastinfer.tune.choose")
AUTO = Config(precision="auto")
BATCHES = random_batches((2, 3, 8, 8))


def model():
    torch.manual_seed(2)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 12, 1), nn.ReLU(),
        nn.Conv2d(12, 16, 1), nn.ReLU(), nn.Conv2d(16, 4, 3),
    ).eval()  # fmt: skip


def planned(module=None, config=AUTO, batches=BATCHES):
    """Return (program, calibrator) as `convert` hands them to choose."""
    program = layer_graph(model() if module is None else module)
    calibrator = Calibrator(program, config)
    calibrator.run(batches)
    return quantize(program, calibrator, config), calibrator


def precisions(program):
    return [program.plan[row.name].precision for row in program.report.layers]


def test_a_loser_stays_float_and_says_why(timer):
    timer({12: 3.0})
    program, calibrator = planned()
    chosen = choose(program, calibrator, AUTO, [BATCHES[0]])
    assert precisions(chosen) == ["int8", "fp32", "int8", "int8"]
    rows = chosen.report.layers
    assert [row.precision for row in rows] == precisions(chosen)
    assert rows[1].reason == "float is faster (2.000 against 3.000 ms)"
    assert [(row.float_ms, row.fast_ms) for row in rows] == [(2.0, 1.0), (2.0, 3.0)] + [
        (2.0, 1.0)
    ] * 2
    # Its neighbour now answers in float, and the whole still computes the model.
    assert program.plan[rows[0].name].output is not None
    assert chosen.plan[rows[0].name].output is None
    (x,) = BATCHES[:1]
    wanted = model()(x)
    assert sqnr_db(wanted, lower(chosen)(x)) > 20


@pytest.mark.parametrize(("fast_ms", "kept"), [(2.09, "int8"), (2.11, "fp32")])
def test_noise_is_no_loss(timer, fast_ms, kept):
    timer({12: fast_ms})
    program, calibrator = planned()
    assert precisions(choose(program, calibrator, AUTO, [BATCHES[0]]))[1] == kept


def test_who_meets_float_pays_for_quantizing(timer):
    timed = timer(border=1.5).timed
    program, calibrator = planned()
    chosen = choose(program, calibrator, AUTO, [BATCHES[0]])
    assert precisions(chosen) == ["fp32", "int8", "int8", "int8"]
    assert chosen.report.layers[0].fast_ms == 2.5
    assert timed.count(None) == 1


@pytest.mark.parametrize(
    "config",
    [Config("auto", allow_slower=True), Config("int8"), Config("int8-dynamic"), Config("fp32")],
)
def test_what_was_asked_for_is_not_timed(timer, config):
    timed = timer({12: 3.0}).timed
    program, calibrator = planned(config=config)
    assert choose(program, calibrator, config, [BATCHES[0]]) is program
    assert not timed


def test_ignored_layers_are_not_timed(timer):
    timed = timer().timed
    config = Config("auto", ignore=("2",))
    program, calibrator = planned(config=config)
    chosen = choose(program, calibrator, config, [BATCHES[0]])
    row = chosen.report.layers[1]
    assert (row.precision, row.float_ms, row.reason) == ("fp32", None, "named in ignore")
    assert {m.spec.out_features for m in timed if isinstance(m, Layer)} == {8, 16, 4}


def test_equal_layers_are_timed_once(timer):
    timed = timer({16: 3.0}).timed
    same = nn.Sequential(*[nn.Conv2d(16, 16, 1) for _ in range(5)], nn.Conv2d(16, 4, 1)).eval()
    batches = random_batches((2, 16, 6, 6))
    program, calibrator = planned(same, batches=batches)
    chosen = choose(program, calibrator, AUTO, [batches[0]])
    # The first reads a float tensor, the last has other channels.
    assert len([m for m in timed if isinstance(m, Layer)]) == 3
    assert precisions(chosen) == ["fp32"] * 5 + ["int8"]
    assert all(row.fast_ms is not None for row in chosen.report.layers)


def test_out_of_budget_layers_stay_as_planned(timer, monkeypatch):
    monkeypatch.setattr(CHOOSE, "BUDGET_S", -1.0)
    sizes = [6, 8, 10, 12, 14, 16, 18, 20]
    timer(dict.fromkeys(sizes, 3.0))
    many = nn.Sequential(*[nn.Conv2d(a, b, 1) for a, b in itertools.pairwise(sizes)]).eval()
    batches = random_batches((2, 6, 5, 5))
    program, calibrator = planned(many, batches=batches)
    chosen = choose(program, calibrator, AUTO, [batches[0]])
    assert precisions(chosen) == ["fp32"] * 5 + ["int8"] * 2
    assert [row.fast_ms for row in chosen.report.layers] == [3.0] * 5 + [None] * 2


def test_the_model_runs_for_shapes_only_where_calibration_saw_others(timer, monkeypatch):
    timer()
    runs, run = [], CHOOSE._Shapes.run
    monkeypatch.setattr(CHOOSE._Shapes, "run", lambda *a: (runs.append(1), run(*a))[1])
    program, calibrator = planned()
    wanted = dict(CHOOSE._input_shapes(program, calibrator, [BATCHES[0]]))
    assert not runs
    other = torch.cat([BATCHES[0]] * 2)
    got = CHOOSE._input_shapes(program, calibrator, [other])
    assert len(runs) == 1
    assert {n: tuple((2 * s[0], *s[1:]) for s in shapes) for n, shapes in wanted.items()} == got


@pytest.mark.parametrize(("fast", "runs"), [(0.2, 3), (0.9, 10), (3.0, 10)])
def test_a_clear_winner_is_timed_no_further(monkeypatch, fast, runs):
    now, called = [0.0], []
    monkeypatch.setattr(CHOOSE, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    def call(name, seconds):
        called.append(name)
        now[0] += seconds

    got = CHOOSE.race_ms(lambda: call("float", 1.0), lambda: call("fast", fast), 9.5)
    assert got == pytest.approx((1000.0, 1000 * fast))
    assert called[:6] == ["float", "fast"] * 3
    assert called.count("float") == 1 + runs  # the first warms up


def test_best_of_some_runs(monkeypatch):
    now, costs = [0.0], iter([8.0, 0.5, 0.25, 0.5, 0.125])
    monkeypatch.setattr(CHOOSE, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    def call():
        now[0] += next(costs)

    # The first call warms up; then two at least, and more until limit_s is spent.
    assert CHOOSE.best_ms(call, 0.75) == 250.0
    assert list(costs) == [0.5, 0.125]
    endless = []
    CHOOSE.best_ms(lambda: endless.append(1), 1.0)
    assert len(endless) == 51


class AddsItsInput(nn.Module):
    """A layer whose residual is its own input."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.Conv2d(8, 4, 1)

    def forward(self, x):
        x = self.first(x).relu()
        return self.last((x + self.second(x)).relu())


def test_a_residual_that_is_the_input_is_timed_too():
    torch.manual_seed(3)
    program, calibrator = planned(AddsItsInput().eval())
    chosen = choose(program, calibrator, AUTO, [BATCHES[0]])
    assert [row.fast_ms is not None for row in chosen.report.layers] == [True] * 3
