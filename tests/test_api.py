"""convert end to end on small models: what comes back answers every call the model answers."""

from __future__ import annotations

import copy
import importlib

import pytest
import torch
from small_models import CASES, FLOOR_DB, assert_alike, image, make
from torch import nn

import fastinfer
from fastinfer.graph.layer import Layer
from fastinfer.nn.converted_module import ConvertedModule, ModulePath


@pytest.fixture(autouse=True)
def one_thread(threads):
    threads(1)
    with torch.no_grad():
        yield


# The package exports the function convert, and this is the module it is in.
api = importlib.import_module("fastinfer.api")
OTHER_PRECISIONS = ("int8-dynamic", "int8-weight-only", "bf16", "fp32")


@pytest.mark.parametrize(
    ("name", "config"),
    [
        *((name, "int8") for name in CASES),
        *((name, config) for name in ("residual", "attention") for config in OTHER_PRECISIONS),
    ],
)
def test_every_model_and_precision(name, config):
    model, x, other = make(name)
    before = copy.deepcopy(model.state_dict())
    calibration = [x, other] if config == "int8" else None
    fast = fastinfer.convert(model, x, config=config, calibration=calibration)
    report = fastinfer.report(fast)
    assert report.path == ("modules" if name == "branching" else "graph"), report.notes
    floor = {"fp32": 80.0}.get(config, FLOOR_DB)
    assert_alike(model(x), fast(x), floor)
    assert_alike(model(other), fast(other), floor)
    assert_alike(model(other[:1]), fast(other[:1]), floor)
    if config == "int8" and name != "recurrent":
        assert any(row.precision.startswith("int8") for row in report.layers)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert str(report)


@pytest.mark.parametrize("name", CASES)
def test_without_example(name):
    model, x, other = make(name)
    fast = fastinfer.convert(model)
    assert isinstance(fast, ModulePath)
    assert_alike(model(x), fast(x))
    assert_alike(model(other), fast(other))


def test_views_of_a_convolution_without_a_graph():
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4 * 36, 5)

        def forward(self, x):
            return self.head(self.conv(x).view(x.shape[0], -1))

    model, x = Flat().eval(), image(2, 8)
    assert_alike(model(x), fastinfer.convert(model, config="int8")(x))
    assert_alike(model(x), fastinfer.convert(model, x, config="int8")(x))


@pytest.mark.parametrize(
    "stage",
    [
        "paths.graph.lower",
        "paths.graph.run_passes",
        "compress.quantize.calibrate.find_betweens",
        "compress.quantize.decide.int8_betweens",
        "compress.quantize.bias_correction.find_betweens",
    ],
)
def test_a_failing_stage_does_not_fail_the_whole(monkeypatch, stage):
    def broken(*args):
        raise RuntimeError("out of registers")

    monkeypatch.setattr(f"fastinfer.{stage}", broken)
    model, x, _ = make("mlp")
    fast = fastinfer.convert(model, x, config="int8")
    report = fastinfer.report(fast)
    assert report.path == "modules" and any("out of registers" in note for note in report.notes)
    assert_alike(model(x), fast(x))


@pytest.mark.parametrize("name", ["residual", "mlp", "attention"])
def test_auto_is_not_slower(name):
    model, x, _ = make(name)
    fast = fastinfer.convert(model, x)
    report = fastinfer.report(fast)
    assert report.fast_ms <= report.float_ms * 1.05
    assert_alike(model(x), fast(x), 18.0)


def test_train_mode_is_said_and_kept():
    model, x, _ = make("residual")
    model.train()
    fast = fastinfer.convert(model, x, config="int8")
    assert model.training and model.drop.training and not fast.training
    assert any("train mode" in note for note in fastinfer.report(fast).notes)


def test_hooked_model_keeps_its_hooks():
    model, x, _ = make("mlp")
    seen = []
    model[1].register_forward_hook(lambda *args: seen.append(1))
    fast = fastinfer.convert(model, x, config="int8")
    assert fastinfer.report(fast).path == "modules"
    seen.clear()
    fast(x)
    assert seen == [1]


@pytest.mark.parametrize(
    "form",
    [lambda x: x, lambda x: (x,), lambda x: [x], lambda x: {"input": x}],
    ids=["tensor", "tuple", "list", "dict"],
)
def test_example_forms(form):
    model, x, _ = make("mlp")
    fast = fastinfer.convert(model, form(x), config="int8")
    assert isinstance(fast, ConvertedModule)
    assert_alike(model(x), fast(x))


@pytest.mark.parametrize(
    "form",
    [
        lambda x: [x, x],
        lambda x: ((x, torch.arange(1)) for _ in range(2)),
        lambda x: [{"input": x}],
        lambda x: [[x, torch.zeros(1, dtype=torch.long)]],
    ],
    ids=["tensors", "labelled", "dicts", "lists"],
)
def test_calibration_forms(form):
    model, x, _ = make("mlp")
    fast = fastinfer.convert(model, x, config="int8", calibration=form(x))
    assert not any("example only" in note for note in fastinfer.report(fast).notes)
    assert_alike(model(x), fast(x))


def test_calibration_of_other_sizes_is_skipped_and_said():
    model, x, other = make("recurrent")  # torch.export unrolls an LSTM: one length
    fast = fastinfer.convert(model, x, config="int8", calibration=[x, other])
    assert any("batch 1 was skipped" in note for note in fastinfer.report(fast).notes)
    assert_alike(model(other), fast(other), 80.0)


@pytest.mark.parametrize("ignore", ["stem", "blocks.*", nn.Linear])
def test_ignored_layers_stay_float(ignore):
    model, x, _ = make("residual")
    fast = fastinfer.convert(model, x, config=fastinfer.Config("int8", ignore=(ignore,)))
    kept = {row.name for row in fastinfer.report(fast).layers if row.precision == "fp32"}
    wanted = {
        "stem": {"stem"},
        "blocks.*": {"blocks.0.conv", "blocks.1.conv"},
        nn.Linear: {"head"},
    }
    assert kept == wanted[ignore]
    assert_alike(model(x), fast(x))


def test_evaluate_sends_layers_back_to_float():
    model, x, _ = make("separable")
    exact = model(x)

    def closeness(candidate):
        return -float((candidate(x) - exact).abs().max())

    strict = fastinfer.convert(model, x, config="int8", evaluate=closeness, max_drop=1e-6)
    loose = fastinfer.convert(model, x, config="int8", evaluate=closeness, max_drop=10.0)
    assert closeness(strict) >= -1e-6
    assert len(fastinfer.report(strict).fallbacks) > len(fastinfer.report(loose).fallbacks)


def test_target_is_reported():
    model, x, _ = make("mlp")
    fast = fastinfer.convert(model, x, config="int8", target_ms=1e-6)
    assert any("NOT reached" in note for note in fastinfer.report(fast).notes)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes(dtype):
    model, x, _ = make("residual")
    model, x = model.to(dtype), x.to(dtype)
    fast = fastinfer.convert(model, x, config="int8")
    assert_alike(model(x), fast(x))
    with pytest.raises(TypeError, match="expected"):
        fast(x.float())


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18"])
def test_torchvision(name):
    models = pytest.importorskip("torchvision").models
    torch.manual_seed(0)
    model = getattr(models, name)(num_classes=10).eval()
    x = torch.randn(1, 3, 64, 64)
    fast = fastinfer.convert(model, x, config="int8", calibration=[torch.randn(4, 3, 64, 64)])
    report = fastinfer.report(fast)
    assert report.path == "graph" and report.passes["fold_batch_norm"] >= 20
    assert_alike(model(x), fast(x), 10.0)
    other = torch.randn(2, 3, 80, 96)
    assert_alike(model(other), fast(other), 10.0)


def test_each_batch_runs_once_and_the_model_is_exported_once(monkeypatch):
    """What convert costs: runs of the model, of its graph's layers, tries to export."""
    exports, export = [], torch.export.export
    monkeypatch.setattr(
        torch.export, "export", lambda *a, **k: (exports.append(1), export(*a, **k))[1]
    )
    monkeypatch.setattr(api, "time_whole", lambda models, *calls: dict.fromkeys(models, 1.0))
    runs, layers = [], 3

    class Counted(nn.Sequential):
        def forward(self, x):
            runs.append(1)
            return super().forward(x)

    torch.manual_seed(0)
    convs = [nn.Conv2d(8, 8, 3, padding=1) for _ in range(layers)]
    model = Counted(*(m for conv in convs for m in (conv, nn.ReLU()))).eval()
    accumulated, accumulate = [], Layer.accumulate
    monkeypatch.setattr(
        Layer, "accumulate", lambda self, x: (accumulated.append(1), accumulate(self, x))[1]
    )
    x, batches = torch.randn(1, 8, 9, 9), [torch.randn(2, 8, 9, 9) for _ in range(4)]
    fast = fastinfer.convert(model, x, config="int8", calibration=batches)
    report = fastinfer.report(fast)
    assert [row.precision for row in report.layers] == ["int8"] * layers
    assert len(exports) == 1
    # Traced once, and compared with its graph on the example and batches of 3 and of none.
    assert len(runs) == 4
    # Once to calibrate and once simulated: the guard keeps what the float layers answered.
    assert len(accumulated) == 2 * layers * len(batches)
    planning = ["capture", "passes", "calibrate", "quantize", "choose", "guard", "zeros"]
    assert list(report.stage_s) == [*planning, "lower", "time_whole"]
