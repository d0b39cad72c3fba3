"""Where a model and its example may be, and what is said where not; no GPU."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import fastinfer
from fastinfer import request_devices, runtime
from fastinfer.compress.quantize.precision import unsupported
from fastinfer.graph.layer import Layer, LayerSpec
from fastinfer.request_devices import check_devices, places_of
from fastinfer.types.device import takes_int8, why_no_int8

CPU, FIRST, SECOND = torch.device("cpu"), torch.device("cuda:0"), torch.device("cuda:1")
WEIGHT, BIAS, INPUT = "model: fc.weight", "model: fc.bias", "example_inputs: tensor 0"


@pytest.fixture
def gpu(monkeypatch):
    """Make torch say that it sees two GPUs, with kernels."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(request_devices, "require_cuda_kernels", lambda: None)


def test_one_device(gpu):
    assert check_devices([]) == CPU
    for device in (CPU, FIRST, SECOND):
        assert check_devices([(WEIGHT, device), (INPUT, device)]) == device


def test_places_have_names():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    names = [name for name, _ in places_of(model, ((torch.ones(1), 3), {"y": torch.ones(1)}))]
    assert names[:2] == ["model: 0.weight", "model: 0.bias"]
    assert "model: 1.running_mean" in names
    assert names[-2:] == ["example_inputs: tensor 0", "example_inputs: tensor 2"]


@pytest.mark.parametrize(
    ("places", "text"),
    [
        (
            [(WEIGHT, FIRST), (INPUT, CPU)],
            r"example_inputs: tensor 0: expected all tensors on one device, cuda:0 as model: "
            r"fc.weight, got one on cpu; move it with .to\('cuda:0'\), or the model",
        ),
        ([(WEIGHT, CPU), (INPUT, FIRST)], r"tensor 0: .* cpu as .* got one on cuda:0"),
        (
            [(WEIGHT, FIRST), (BIAS, SECOND)],
            r"model: fc.bias: .*, got one on cuda:1; move the model with model.to\('cuda:0'\)",
        ),
        ([(WEIGHT, torch.device("xpu:0"))], r"model: fc.weight: expected a tensor on cpu or cuda"),
        ([(WEIGHT, CPU), (INPUT, torch.device("meta"))], r"tensor 0: .* got one on meta"),
    ],
    ids=["example on cpu", "model on cpu", "two gpus", "xpu", "meta"],
)
def test_mixes(gpu, places, text):
    with pytest.raises(ValueError, match=text):
        check_devices(places)


def test_a_gpu_that_torch_does_not_see(gpu, monkeypatch):
    text = (
        r"expected a GPU that torch sees, got tensors on cuda:{}, and torch sees {}; call model.cpu"
    )
    with pytest.raises(RuntimeError, match=text.format(2, 2)):
        check_devices([(WEIGHT, torch.device("cuda:2"))])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match=text.format(0, 0)):
        check_devices([(WEIGHT, FIRST)])


def test_a_gpu_without_kernels(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(runtime, "_C_cuda", None)
    with pytest.raises(RuntimeError, match=r"expected CUDA kernels .* missing .*; build it with"):
        check_devices([(WEIGHT, FIRST)])


def test_convert_asks():
    model = nn.Linear(4, 4)
    with pytest.raises(ValueError, match="example_inputs: tensor 0: expected a tensor on cpu"):
        fastinfer.convert(model, torch.ones(1, 4, device="meta"))


def test_an_old_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    said = why_no_int8(FIRST)
    assert "cuda:0 has compute capability 7.5, int8 kernels need 8.0" in said
    assert "torch's own kernels serve it in float" in said
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    assert why_no_int8(FIRST) is None and why_no_int8(CPU) is None
    assert "run on cpu and cuda" in why_no_int8(torch.device("xpu"))


def test_an_old_gpus_layers_stay_float(monkeypatch):
    layer = Layer(LayerSpec("linear", 4, 4), torch.ones(4, 4), None)
    assert unsupported(layer, (2, 4)) is None
    monkeypatch.setattr(
        "fastinfer.compress.quantize.precision.why_no_int8", lambda device: "too old"
    )
    assert unsupported(layer, (2, 4)) == "too old"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_halves(dtype):
    layer = Layer(LayerSpec("linear", 4, 4), torch.ones(4, 4, dtype=dtype), None)
    assert "int8 layers need float32" in unsupported(layer, (2, 4))
    assert takes_int8(dtype, FIRST) and not takes_int8(dtype, CPU)
    assert takes_int8(torch.float32, FIRST) and takes_int8(torch.float32, CPU)
    assert not takes_int8(torch.float64, FIRST) and not takes_int8(None, CPU)
    assert not takes_int8(torch.float32, torch.device("meta"))
