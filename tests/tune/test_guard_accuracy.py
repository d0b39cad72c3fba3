"""guard_accuracy: layers go back to float, worst first, until the answer is good enough."""

from __future__ import annotations

import importlib
import math

import pytest
import torch
from layer_graph import layer_graph, random_batches
from torch import nn

from fastinfer.compress.quantize import Calibrator, quantize
from fastinfer.compress.quantize.bias_correction import SimulationResult, correct_biases
from fastinfer.config import Config
from fastinfer.graph.capture import capture
from fastinfer.graph.layer import Layer
from fastinfer.passes import STATIC_FLOAT_PASSES, run_passes
from fastinfer.tune import guard_accuracy
from fastinfer.tune.accuracy import between_noise, local_noise

CALIBRATE = importlib.import_module("fastinfer.compress.quantize.calibrate")
ACCURACY = importlib.import_module("fastinfer.tune.accuracy")
LAYERS = 7
NAMES = [str(2 * i) for i in range(LAYERS)]
#: From the layer that does most harm to the one that does least.
ORDER = ["4", "0", "12", "2", "8", "6", "10"]


def chain():
    torch.manual_seed(1)
    layers = [layer for _ in range(LAYERS) for layer in (nn.Linear(16, 16), nn.ReLU())]
    return nn.Sequential(*layers[:-1]).eval()


class Harmful(nn.Module):
    """`bad` reads small values beside a large one that it ignores: int8 loses the small ones."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.bad, self.good, self.last = nn.Linear(16, 32), nn.Linear(32, 32), nn.Linear(32, 8)
        with torch.no_grad():
            self.bad.weight[:, 0] = 0

    def forward(self, x):
        return self.last(torch.relu(self.good(torch.relu(self.bad(x)))))


def lopsided(count=4):
    batches = random_batches((32, 16), count)
    for batch in batches:
        batch[:, 0] *= 1e4
    return batches


def planned(model, batches, config):
    """Return (program, calibrator) as `convert` hands them to the guard."""
    program = layer_graph(model)
    calibrator = Calibrator(program, config)
    calibrator.run(batches)
    return quantize(program, calibrator, config), calibrator


def in_int8(program):
    return {name for name, entry in program.plan.items() if entry.precision.startswith("int8")}


def reasons(program):
    return {row.name: row.reason for row in program.report.layers if row.precision == "fp32"}


class Tried(list):
    """The plans that were assessed; `counts` says on how many samples, None for all."""


@pytest.fixture
def scripted(monkeypatch):
    """Return a function that fixes the output's SQNR as a function of the int8 layers.

    The layers' own noise follows ORDER. What the guard tried is in the returned list.
    """

    def install(sqnr_db):
        tried, counts = Tried(), []
        tried.counts = counts

        def assess(program, calibrator, config, count=None):
            tried.append(in_int8(program))
            counts.append(count)
            return program, SimulationResult({}, {}, sqnr_db(tried[-1]))

        def noise(program, calibrator):
            return {n: float(i) for i, n in enumerate(ORDER) if n in in_int8(program)}

        monkeypatch.setattr(ACCURACY, "_assess", assess)
        monkeypatch.setattr(ACCURACY, "local_noise", noise)
        return tried

    return install


@pytest.mark.parametrize("precision", ["auto", "int8", "int8-dynamic", "int8-weight-only"])
def test_the_harmful_layer_alone_goes_back(precision):
    config = Config(precision=precision, min_sqnr_db=20.0)
    program, calibrator = planned(Harmful(), lopsided(), config)
    guarded = guard_accuracy(program, calibrator, config)
    if precision == "int8-weight-only":  # its activations stay float
        assert not reasons(guarded)
    else:
        ((name, reason),) = reasons(guarded).items()
        assert name == "bad"
        assert reason.startswith("output SQNR ") and reason.endswith(" dB < 20 dB with it in int8")
    assert guarded.report.sqnr_db >= 20
    assert [row.name for row in guarded.report.layers] == ["bad", "good", "last"]
    assert all(row.sqnr_db is not None for row in guarded.report.layers if row.precision != "fp32")


def test_local_noise_is_each_layers_own():
    """Given float inputs: what an earlier layer spoils does not count against a later one."""
    config = Config(precision="int8")
    program, calibrator = planned(Harmful(), lopsided(), config)
    noise = local_noise(program, calibrator)
    assert noise.keys() == {"bad", "good", "last"}
    assert noise["bad"] < 10 < 25 < min(noise["good"], noise["last"])
    assert not any(layer._forward_hooks for layer in calibrator.layers.values())


def test_good_enough_stays_as_it_is():
    config = Config(precision="int8")
    program, calibrator = planned(chain(), random_batches((32, 16)), config)
    guarded = guard_accuracy(program, calibrator, config)
    assert in_int8(guarded) == set(NAMES) and not reasons(guarded)
    assert guarded.report.sqnr_db > 10
    assert all(entry.bias_correction for entry in guarded.plan.values())


def test_biases_stay_without_bias_correction():
    config = Config(precision="int8", bias_correction=False)
    program, calibrator = planned(chain(), random_batches((32, 16)), config)
    guarded = guard_accuracy(program, calibrator, config)
    assert not any(entry.bias_correction for entry in guarded.plan.values())
    assert guarded.report.sqnr_db > 10


def test_worst_first_and_ever_more_at_once(scripted):
    tried = scripted(lambda left: 30.0 if len(left) <= 4 else 15.0)
    config = Config(precision="int8", min_sqnr_db=25.0)
    program, calibrator = planned(chain(), random_batches((8, 16)), config)
    guarded = guard_accuracy(program, calibrator, config)
    assert tried == [set(ORDER), set(ORDER[1:]), set(ORDER[3:])]
    assert in_int8(guarded) == set(ORDER[3:])
    text = "output SQNR 15.0 dB < 25 dB with it in int8"
    assert reasons(guarded) == dict.fromkeys(ORDER[:3], text)
    assert guarded.report.sqnr_db == 30.0


@pytest.mark.parametrize(
    ("far_db", "samples", "counts"),
    [
        (22.9, 8, [2, 2, 2, None]),
        (23.0, 8, [2, None, 2, None, 2, None]),
        (math.nan, 8, [2, None, 2, None, 2, None]),
        (22.9, 11, [2, 2, 2, None]),
        (22.9, 12, [3, 3, 3, None]),
        (22.9, 7, [None, None, None]),
    ],
)
def test_a_plan_that_is_far_off_is_seen_on_few_samples(scripted, far_db, samples, counts):
    tried = scripted(lambda left: 30.0 if len(left) <= 4 else far_db)
    config = Config(precision="int8", min_sqnr_db=25.0)
    program, calibrator = planned(chain(), random_batches((2, 16), samples), config)
    guarded = guard_accuracy(program, calibrator, config)
    assert tried.counts == counts
    assert in_int8(guarded) == set(ORDER[3:]) and guarded.report.sqnr_db == 30.0


def test_where_nothing_is_left_figures_are_of_all_samples(scripted):
    tried = scripted(lambda left: -math.inf)
    program, calibrator = planned(chain(), random_batches((2, 16), 8), Config(precision="int8"))
    guard_accuracy(program, calibrator, Config(precision="int8"))
    assert tried.counts == [2, 2, 2, 2, None]


def test_figures_are_of_all_samples():
    """Whatever few samples showed on the way."""
    config = Config(precision="int8", min_sqnr_db=20.0)
    program, calibrator = planned(Harmful(), lopsided(8), config)
    guarded = guard_accuracy(program, calibrator, config)
    whole = correct_biases(guarded, calibrator.samples)[1]
    assert reasons(guarded).keys() == {"bad"}
    assert guarded.report.sqnr_db == pytest.approx(whole.output_sqnr_db)


@pytest.mark.parametrize("sqnr_db", [-math.inf, math.nan])
def test_nothing_good_ends_with_all_float(scripted, sqnr_db):
    tried = scripted(lambda left: sqnr_db)
    config = Config(precision="int8")
    program, calibrator = planned(chain(), random_batches((8, 16)), config)
    guarded = guard_accuracy(program, calibrator, config)
    assert [len(left) for left in tried] == [7, 6, 4, 0]
    assert reasons(guarded).keys() == set(NAMES)


@pytest.mark.parametrize(
    ("config", "sqnr_db", "kept"),
    [
        (Config("auto"), 19.9, False),
        (Config("auto"), 20.0, True),
        (Config("int8"), 9.9, False),
        (Config("int8"), 10.0, True),
        (Config("auto", min_sqnr_db=5.0), 5.0, True),
        (Config("int8", min_sqnr_db=40.0), 39.9, False),
        (Config("int8", min_sqnr_db=-math.inf), -math.inf, True),
    ],
)
def test_what_is_good_enough(scripted, config, sqnr_db, kept):
    scripted(lambda left: sqnr_db)
    program, calibrator = planned(chain(), random_batches((8, 16)), config)
    assert bool(in_int8(guard_accuracy(program, calibrator, config))) == kept


class Judge:
    """evaluate and build: a program is judged by its int8 layers, the float model scores 0.9."""

    def __init__(self, score):
        self.score, self.original, self.seen = score, nn.Identity(), []

    def build(self, program):
        built = nn.Identity()
        built.left = in_int8(program)
        return built

    def evaluate(self, model):
        if model is self.original:
            return 0.9
        self.seen.append(model.left)
        return self.score(model.left)

    def arguments(self, max_drop):
        return {
            "evaluate": self.evaluate,
            "build": self.build,
            "original": self.original,
            "max_drop": max_drop,
        }


def test_evaluate_and_max_drop(scripted):
    scripted(lambda left: 30.0)
    judge = Judge(lambda left: 0.5 if ORDER[1] in left else 0.85)
    config = Config(precision="int8")
    program, calibrator = planned(chain(), random_batches((8, 16)), config)
    guarded = guard_accuracy(program, calibrator, config, **judge.arguments(max_drop=0.06))
    assert judge.seen == [set(ORDER), set(ORDER[1:]), set(ORDER[3:])]
    text = "evaluate drops by 0.4 > max_drop 0.06 with it in int8"
    assert reasons(guarded) == dict.fromkeys(ORDER[:3], text)


def test_a_model_off_by_far_is_not_evaluated(scripted):
    """evaluate may take minutes; the SQNR already says no."""
    scripted(lambda left: 3.0 if len(left) > 4 else 30.0)
    judge = Judge(lambda left: 0.9)
    config = Config(precision="int8")
    program, calibrator = planned(chain(), random_batches((8, 16)), config)
    guard_accuracy(program, calibrator, config, **judge.arguments(max_drop=0.0))
    assert judge.seen == [set(ORDER[3:])]


@pytest.mark.parametrize("score", [0.0, math.nan])
def test_evaluate_that_is_never_content_ends(scripted, score):
    scripted(lambda left: 30.0)
    judge = Judge(lambda left: score)
    config = Config(precision="int8")
    program, calibrator = planned(chain(), random_batches((8, 16)), config)
    guarded = guard_accuracy(program, calibrator, config, **judge.arguments(max_drop=0.1))
    assert [len(left) for left in judge.seen] == [7, 6, 4, 0]
    assert not in_int8(guarded)


def test_without_int8_layers_nothing_is_done(scripted):
    tried = scripted(lambda left: 30.0)
    config = Config(precision="bf16")
    program, calibrator = planned(chain(), random_batches((8, 16)), config)
    judge = Judge(lambda left: 0.0)
    assert guard_accuracy(program, calibrator, config, **judge.arguments(0.0)) is program
    assert not tried and not judge.seen


def test_errors_of_evaluate_are_the_users(scripted):
    scripted(lambda left: 30.0)

    def broken(left):
        raise KeyError("no such label")

    config = Config(precision="int8")
    program, calibrator = planned(chain(), random_batches((8, 16)), config)
    with pytest.raises(KeyError, match="no such label"):
        guard_accuracy(program, calibrator, config, **Judge(broken).arguments(0.1))


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(4)
        self.a, self.b, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x):
        return self.last(torch.relu(self.a(x) + self.b(x).sigmoid()) * self.b(x).tanh())


def gated(min_sqnr_db):
    config = Config(precision="int8", min_sqnr_db=min_sqnr_db)
    batches = random_batches((4, 3, 6, 6))
    program = run_passes(capture(Gated().eval(), (batches[0],)), STATIC_FLOAT_PASSES)
    calibrator = Calibrator(program, config).run(batches)
    return quantize(program, calibrator, config), calibrator, config


def test_operations_between_layers_go_back_too(monkeypatch):
    program, calibrator, config = gated(20.0)
    noise = between_noise(program, calibrator)
    assert noise.keys() == program.between.keys() and all(20 < db < 60 for db in noise.values())

    def assess(program, calibrator, config, count=None):
        return program, SimulationResult({}, {}, 5.0 if "mul" in program.between else 25.0)

    monkeypatch.setattr(ACCURACY, "_assess", assess)
    monkeypatch.setattr(ACCURACY, "between_noise", lambda program, calibrator: {"mul": -1.0})
    guarded = guard_accuracy(program, calibrator, config)
    # Without the product nothing reads what was before it in int8.
    assert not guarded.between and not guarded.report.fallbacks
    assert "float for accuracy, between layers: mul" in guarded.report.notes
    assert (guarded.report.between_int8, guarded.report.between_total) == (0, len(noise))


def test_good_enough_operations_stay():
    program, calibrator, config = gated(20.0)
    guarded = guard_accuracy(program, calibrator, config)
    assert guarded.between == program.between and not guarded.report.fallbacks
    assert guarded.report.between_int8 == guarded.report.between_total > 1


@pytest.mark.parametrize("kept", [64 * 2**20, 700, 0])
def test_float_layers_do_not_run_again_where_their_results_are_kept(kept, monkeypatch):
    config = Config(precision="int8", min_sqnr_db=-100.0)
    batches = random_batches((4, 16), 5)
    wanted_program, wanted_calibrator = planned(chain(), batches, config)
    wanted_calibrator.results = [{} for _ in batches]
    wanted = guard_accuracy(wanted_program, wanted_calibrator, config)

    monkeypatch.setattr(CALIBRATE, "KEPT_ELEMENTS", kept)
    # Samples are kept by a bound of their own.
    monkeypatch.setattr(CALIBRATE.Calibrator, "_keep", keep_all)
    program, calibrator = planned(chain(), batches, config)
    runs, accumulate = [], Layer.accumulate
    floats = set(calibrator.layers.values())

    def counted(self, x):
        runs.append(self in floats)
        return accumulate(self, x)

    monkeypatch.setattr(Layer, "accumulate", counted)
    guarded = guard_accuracy(program, calibrator, config)
    stored = min(kept // (4 * 16), 5 * LAYERS)
    assert runs.count(True) == 5 * LAYERS - stored
    assert runs.count(False) == 5 * LAYERS
    assert guarded.plan == wanted.plan
    assert guarded.report.layers == wanted.report.layers


def keep_all(self, values):
    self.samples.append(values)
    self.results.append(self._results)


def test_a_sample_that_is_not_kept_leaves_no_results(monkeypatch):
    monkeypatch.setattr(CALIBRATE, "KEPT_SAMPLES", 8)
    _, calibrator = planned(chain(), random_batches((4, 16), 5), Config(precision="int8"))
    assert len(calibrator.samples) == len(calibrator.results) == 2
    assert all(len(results) == LAYERS for results in calibrator.results)
    assert not calibrator._results
