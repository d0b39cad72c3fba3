"""Calibration data: what counts as a batch, what is refused, what the plan becomes."""

from __future__ import annotations

import pytest
import torch
from layer_graph import layer_graph, random_batches
from torch import nn

from fastinfer.compress.quantize import Calibrator, quantize
from fastinfer.compress.quantize.batches import batch_call, read_batches
from fastinfer.compress.quantize.bias_correction import correct_biases, simulate
from fastinfer.config import Config

INT8 = Config(precision="int8")


def model():
    torch.manual_seed(2)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.SiLU(),
        nn.Conv2d(8, 4, 3),
    ).eval()  # fmt: skip


BATCHES = random_batches((2, 3, 8, 8))


def test_batch_forms():
    x, y = torch.zeros(2, 3), torch.zeros(2, 3)
    labels = torch.zeros(2, dtype=torch.long)
    assert batch_call(x, 1) == ((x,), {})
    for label in (labels, [1, 2], ("cat", "dog"), 3, "cat", None):
        assert batch_call((x, label), 1)[0][0] is x and len(batch_call((x, label), 1)[0]) == 1
    assert batch_call([x, y], 2) == ((x, y), {})
    assert batch_call((x, labels), 2) == ((x, labels), {})
    assert batch_call({"image": x}, 1) == ((), {"image": x})
    assert batch_call(({"a": x, "b": y}, labels), 2) == ((), {"a": x, "b": y})
    assert batch_call(((x, y), labels), 2) == ((x, y), {})
    with pytest.raises(TypeError, match="got int"):
        batch_call(3, 1)


def test_refused_data():
    program = layer_graph(model())
    bad = BATCHES[0].clone()
    bad[1, 0, 0, 0] = float("nan")
    infinite = BATCHES[0].clone()
    infinite[0, 0, 0, 0] = float("inf")
    for data, error, text in [
        ([], ValueError, "at least one batch"),
        (iter(()), ValueError, "at least one batch"),
        ([BATCHES[0], BATCHES[1], bad], ValueError, "batch 2 input 0 contains NaN"),
        ([infinite], ValueError, "batch 0 input 0 contains infinity"),
        ([(BATCHES[0], BATCHES[1])], ValueError, "batch 0: expected 1 inputs, got 2"),
        (3, TypeError, "iterable"),
        ("photos", TypeError, "iterable"),
        ([object()], TypeError, "tensors, tuples, lists or dicts"),
        (None, ValueError, "neither"),
    ]:
        with pytest.raises(error, match=text):
            Calibrator(program, INT8).run(data)


def test_one_tensor_is_one_batch():
    values = list(read_batches(BATCHES[0], 1))
    assert len(values) == 1 and values[0][0] is BATCHES[0]


def test_labels_change_nothing():
    labels = torch.zeros(2, dtype=torch.long)
    plain = quantize(layer_graph(model()), BATCHES, INT8)
    labelled = quantize(layer_graph(model()), [(x, labels) for x in BATCHES], INT8)
    assert dict(plain.plan) == dict(labelled.plan)


def test_plan():
    program = quantize(layer_graph(model()), BATCHES, INT8)
    plan = program.plan
    assert [p.precision for p in plan.values()] == ["int8"] * 3
    assert plan["0"].output == plan["2"].input and plan["2"].output == plan["4"].input
    assert plan["2"].preactivation is not None and plan["4"].output is None
    assert plan["0"].output.zero_point == 0 and len(plan["0"].output.scale) == 8
    assert [row.name for row in program.report.layers] == ["0", "2", "4"]
    one_scale = quantize(layer_graph(model()), BATCHES, Config(precision="int8", per_channel=False))
    assert all(p.input.is_per_tensor for p in one_scale.plan.values())


def test_example_serves_with_a_note():
    program = quantize(layer_graph(model()), None, INT8, example=((BATCHES[0],), {}))
    assert all(p.precision == "int8" for p in program.plan.values())
    assert any("calibration=" in note for note in program.report.notes)


@pytest.mark.parametrize("observer", ["minmax", "moving_average", "percentile", "mse", "entropy"])
def test_every_observer_gives_an_accurate_plan(observer):
    config = Config(precision="int8", observer=observer)
    calibrator = Calibrator(layer_graph(model()), config).run(BATCHES)
    program = quantize(layer_graph(model()), BATCHES, config)
    assert simulate(program, calibrator.samples).output_sqnr_db > 20


def test_ignored_and_float():
    program = quantize(layer_graph(model()), BATCHES, Config(precision="int8", ignore=("2",)))
    assert program.plan["2"].precision == "fp32" and program.plan["0"].output is None
    program = quantize(layer_graph(model()), None, Config(precision="fp32"))
    assert {p.precision for p in program.plan.values()} == {"fp32"}


def test_layer_with_nan_weight_stays_float():
    broken = model()
    broken[2].weight.data[0, 0] = float("nan")
    program = quantize(layer_graph(broken), BATCHES, INT8)
    assert program.plan["2"].precision == "fp32" and "NaN" in program.plan["2"].reason
    assert program.plan["4"].precision == "fp32" and program.plan["0"].precision == "int8"


@pytest.mark.parametrize("observer", ["minmax", "percentile", "mse", "entropy"])
def test_layers_behind_infinity_stay_float(observer):
    class Log(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = (nn.Linear(4, 4) for _ in range(3))

        def forward(self, x):
            return self.b(torch.log(torch.clamp(self.a(x), min=0.0))), self.c(x)

    torch.manual_seed(1)
    config = Config(precision="int8", observer=observer)
    program = quantize(layer_graph(Log()), random_batches((16, 4)), config)
    assert {n: p.precision for n, p in program.plan.items()} == {
        "a": "int8", "b": "fp32", "c": "int8",
    }  # fmt: skip


def test_bias_correction_does_not_hurt():
    calibrator = Calibrator(layer_graph(model()), INT8).run(BATCHES)
    program = quantize(layer_graph(model()), calibrator, INT8)
    before = simulate(program, calibrator.samples)
    corrected, after = correct_biases(program, calibrator.samples)
    assert after.output_sqnr_db >= before.output_sqnr_db - 0.5
    assert set(before.layer_sqnr_db) == {"0", "2", "4"}
    assert len(corrected.plan["0"].bias_correction) == 8 and not program.plan["0"].bias_correction
