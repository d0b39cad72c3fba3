"""convert on a GPU: the CPU's integers, reports, halves, and models that change devices."""

from __future__ import annotations

import copy

import pytest
import torch
from converted_on_gpu import WHOLE, assert_replayed, converted, model_of, wanted
from cuda_library import need_gpu
from cuda_models import example, make

import fastinfer
from fastinfer.config import Config
from fastinfer.measure import sqnr_db
from fastinfer.nn import PackedModule

need_gpu("convert is not run on CUDA")

#: CPU and GPU see ranges that differ in the last bits, so their noise differs a little.
SLACK_DB = 3.0
IMAGES = ("plain", "mixed", "resnet18", "mobilenet_v2")


@pytest.fixture(autouse=True)
def _plain_float32():
    """Compute float references without TF32."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


@pytest.mark.parametrize("name", IMAGES)
def test_same_integers_as_the_cpu(name):
    fast = converted(name)
    for batch in (4, 1, 3):
        x = example(name, batch)
        answers = [fast(x.cuda()) for _ in range(3)]  # ops, recorded, replayed
        for answer in answers:
            assert answer.is_cuda
            assert torch.equal(answer.cpu(), wanted(name, x))


@pytest.mark.parametrize("name", IMAGES)
def test_nothing_is_float_inside(name):
    """What the comparison with the CPU rests on."""
    fast = converted(name)
    own = {n.target.namespace for n in fast.lowered.graph.nodes if n.op == "call_function"}
    rows = fastinfer.report(fast).layers
    assert own <= {"fastinfer", "aten"} and "fastinfer" in own
    assert {row.precision for row in rows} == {"int8"}


@pytest.mark.parametrize("name", IMAGES[:3])
def test_as_near_to_float_as_the_cpu(name):
    model, x = model_of(name), example(name)
    with torch.no_grad():
        reference = model(x)
    at_home = fastinfer.convert(model, x, config=WHOLE)(x)
    there = converted(name)(x.cuda()).cpu()
    assert sqnr_db(reference, there) > sqnr_db(reference, at_home) - SLACK_DB


def test_report():
    report = fastinfer.report(converted("plain"))
    assert report.path == "graph" and report.convert_s is not None
    assert report.environment["gpu"] == torch.cuda.get_device_name()
    assert report.float_ms > 0 and report.fast_ms > 0
    assert any("replayed as CUDA graphs" in note for note in report.notes), report.notes
    assert not report.regions
    assert "CUDA" in str(report)


def test_auto_returns_nothing_slower():
    fast = fastinfer.convert(model_of("mixed").cuda(), example("mixed").cuda())
    report = fastinfer.report(fast)
    assert report.path == "original" or report.fast_ms <= 1.1 * report.float_ms
    timed = [row for row in report.layers if row.fast_ms is not None]
    assert report.path == "original" or timed


def test_an_encoder():
    model, x = model_of("encoder"), example("encoder")
    with torch.no_grad():
        reference = model(x)
    fast = fastinfer.convert(model.cuda(), x.cuda(), config="int8")
    answers = [fast(x.cuda()).cpu() for _ in range(3)]
    assert torch.equal(answers[1], answers[2])
    assert sqnr_db(reference, answers[2]) > 20
    assert {row.precision for row in fastinfer.report(fast).layers} & {"int8", "int8-dynamic"}
    assert_replayed(fast)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("plain", torch.float16),
        ("mixed", torch.bfloat16),
        ("encoder", torch.float16),
        ("encoder", torch.bfloat16),
    ],
    ids=str,
)
def test_halves(name, dtype):
    model, x = model_of(name), example(name)
    with torch.no_grad():
        reference = model(x)
    half, there = model.to("cuda", dtype), x.to("cuda", dtype)
    fast = fastinfer.convert(half, there, config="int8")
    rows = fastinfer.report(fast).layers
    assert {row.precision for row in rows} & {"int8", "int8-dynamic"}
    for _ in range(3):
        y = fast(there)
        assert y.dtype == dtype
        assert sqnr_db(reference, y.float().cpu()) > 18
    assert_replayed(fast)


def test_halves_on_the_module_path():
    model, x = model_of("encoder").to("cuda", torch.float16), example("encoder").cuda().half()
    with torch.no_grad():
        reference = model(x)
    fast = fastinfer.convert(model)
    assert fast(x).dtype == torch.float16
    assert sqnr_db(reference, fast(x)) > 20


@pytest.mark.parametrize("name", ["mixed", "encoder"])
def test_the_module_path(name):
    model, x = model_of(name).cuda(), example(name).cuda()
    with torch.no_grad():
        reference = model(x)
    fast = fastinfer.convert(model)
    assert fastinfer.report(fast).path == "modules"
    assert any(isinstance(m, PackedModule) for m in fast.modules())
    assert sqnr_db(reference, fast(x)) > 20
    assert torch.equal(fast(x), fast(x))
    at_home = copy.deepcopy(fast).cpu()
    assert sqnr_db(at_home(x.cpu()), fast(x).cpu()) > 35


@pytest.mark.parametrize("name", ["plain", "mixed"])
def test_saved_here_and_loaded_there(name, tmp_path):
    fast, x = converted(name), example(name)
    path = tmp_path / "m.fastinfer"
    fastinfer.save(fast, path)
    for location in (None, "cuda", "cuda:0", torch.device("cuda"), "cpu"):
        loaded = fastinfer.load(path, map_location=location)
        device = "cpu" if location == "cpu" else "cuda"
        assert loaded.device.type == device
        for _ in range(3):
            assert torch.equal(loaded(x.to(device)).cpu(), wanted(name, x))


@pytest.mark.parametrize("name", ["plain", "mixed"])
def test_converted_on_the_cpu_and_run_here(name, tmp_path):
    model, x = model_of(name), example(name)
    fast = fastinfer.convert(model, x, config=WHOLE)
    want = fast(x)
    path = tmp_path / "m"
    fastinfer.save(fast, path)
    loaded = fastinfer.load(path, map_location="cuda")
    moved = copy.deepcopy(fast).to("cuda")
    for other in (loaded, moved):
        for _ in range(3):
            assert torch.equal(other(x.cuda()).cpu(), want)
    assert torch.equal(loaded.cpu()(x), want)
    assert torch.equal(moved.cpu()(x), want)
    odd = torch.randn(2, 3, 33, 35)  # no graph for it: the float model answers
    if name == "mixed":
        assert moved.to("cuda")(odd.cuda()).shape == (2, 10)


def test_wrong_devices():
    fast, x = converted("plain"), example("plain")
    with pytest.raises(TypeError, match=r"expected float32 .* on cuda:0, got .* on cpu"):
        fast(x)
    model = model_of("plain")
    with pytest.raises(ValueError, match=r"example_inputs: tensor 0: expected all tensors on one"):
        fastinfer.convert(model, x.cuda())
    model.fc.cuda()
    with pytest.raises(ValueError, match=r"model: fc.weight: expected all tensors on one device"):
        fastinfer.convert(model, x)
    model.cuda()
    with pytest.raises(ValueError, match=r"batch 0: input 'x': expected .* on cuda:0"):
        fastinfer.convert(model, x.cuda(), calibration=[x])


def test_an_old_gpu_stays_float(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *args: (7, 5))
    model, x = model_of("plain").cuda(), example("plain").cuda()
    fast = fastinfer.convert(model, x, config="int8")
    rows = fastinfer.report(fast).layers
    assert {row.precision for row in rows} == {"fp32"}
    assert all("compute capability 7.5" in row.reason for row in rows)
    with torch.no_grad():
        assert sqnr_db(model(x), fast(x)) > 60


def test_benchmark_and_compare():
    model, x = model_of("mixed").cuda(), example("mixed").cuda()
    fast = converted("mixed")
    table = fastinfer.benchmark({"eager": model, "fast": fast}, x, min_time_s=0.05)
    assert all(row.timing.median_ms > 0 for row in table.rows)
    compared = fastinfer.compare(model, fast, x)
    assert "block" in str(compared)


def test_benchmark_times_the_device():
    """A call that only enqueues takes as long as its kernels."""
    a = torch.randn(4096, 4096, device="cuda")
    table = fastinfer.benchmark({"one": lambda x: x @ x, "ten": _ten}, a, min_time_s=0.05)
    assert 5 < table["ten"].timing.median_ms / table["one"].timing.median_ms < 15


def _ten(x):
    for _ in range(10):
        y = x @ x
    return y


def test_every_setting_of_calibration():
    model, x = model_of("mixed").cuda(), example("mixed").cuda()
    with torch.no_grad():
        reference = model(x)
    for observer in ("moving_average", "percentile", "mse", "entropy"):
        config = Config("int8", observer=observer)
        fast = fastinfer.convert(model, x, config=config, calibration=[x, x.flip(0)])
        assert sqnr_db(reference, fast(x)) > 10, observer


def test_other_precisions():
    model, x = model_of("mixed").cuda(), example("mixed").cuda()
    with torch.no_grad():
        reference = model(x)
    for config in ("int8-dynamic", "int8-weight-only", "bf16", "fp32"):
        fast = fastinfer.convert(model, x, config=config)
        assert sqnr_db(reference, fast(x)) > 20, config


def test_submodules():
    from torch import nn

    class Odd(nn.Module):
        """Its own code decides by values, so that only parts are captured."""

        def __init__(self) -> None:
            super().__init__()
            self.body = make("mixed")

        def forward(self, x):
            return self.body(x) if float(x.sum()) < 1e9 else x

    model, x = Odd().cuda().eval(), example("mixed").cuda()
    with torch.no_grad():
        reference = model(x)
    fast = fastinfer.convert(model, x, config="int8")
    for _ in range(3):
        assert sqnr_db(reference, fast(x)) > 20
    assert fastinfer.report(fast).path in ("submodules", "modules")
