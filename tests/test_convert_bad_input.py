"""convert with requests it cannot meet: the text names the argument, what was wanted, what came."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import fastinfer

X = torch.randn(2, 8)


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).eval()


def count(model):
    return 1.0


@pytest.mark.parametrize("model", [None, "resnet18", torch.relu, nn.Linear])
def test_no_module(model):
    with pytest.raises(TypeError, match=r"model: expected an nn\.Module"):
        fastinfer.convert(model, X)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"config": "int9"}, ValueError, "expected precision in"),
        ({"config": 8}, TypeError, "preset name or a Config"),
        ({"max_drop": 0.1}, ValueError, "max_drop was given without evaluate"),
        ({"evaluate": count}, ValueError, "evaluate was given without max_drop"),
        ({"evaluate": 3, "max_drop": 0.1}, TypeError, "evaluate: expected a function"),
        ({"evaluate": count, "max_drop": -1}, ValueError, "max_drop: expected a number >= 0"),
        ({"target_ms": 0}, ValueError, "target_ms: expected milliseconds > 0"),
        ({"calibration": 5}, TypeError, "calibration: expected an iterable"),
        ({"calibration": X}, TypeError, "put it in a list"),
        ({"config": fastinfer.Config(ignore=("zzz",))}, ValueError, "'zzz'"),
        ({"example_kwargs": {"input": X}}, ValueError, "multiple values|do not fit"),
    ],
)
def test_options(arguments, error, text):
    with pytest.raises(error, match=text):
        fastinfer.convert(mlp(), X, **arguments)


@pytest.mark.parametrize("name", ["calibration", "target_ms"])
def test_what_needs_an_example(name):
    value = {"calibration": [X], "target_ms": 1.0}[name]
    with pytest.raises(ValueError, match="need example_inputs"):
        fastinfer.convert(mlp(), **{name: value})


@pytest.mark.parametrize(
    ("example", "error", "text"),
    [
        (3, TypeError, "at least one tensor"),
        ((), TypeError, "at least one tensor"),
        (torch.full((2, 8), float("nan")), ValueError, "tensor 0 holds NaN"),
        ((X, X), ValueError, "do not fit"),
        ({"wrong": X}, ValueError, "do not fit"),
        (torch.randn(2, 7), ValueError, "the model does not run on example_inputs"),
    ],
)
def test_example(example, error, text):
    with pytest.raises(error, match=text):
        fastinfer.convert(mlp(), example, config="int8")


@pytest.mark.parametrize(
    ("calibration", "error", "text"),
    [
        ([], ValueError, "empty"),
        (iter([]), ValueError, "empty"),
        ([X, torch.full((2, 8), float("nan"))], ValueError, "batch 1 .*NaN"),
        ([X, X, torch.full((2, 8), float("inf"))], ValueError, "batch 2 .*infinity"),
        ([object()], TypeError, "got object"),
        ([(X, X, X)], ValueError, "batch 0"),
        ([torch.randn(2, 5)], ValueError, "no batch has sizes"),
        ([X.double()], ValueError, "batch 0: input 'input': expected float32"),
    ],
)
def test_calibration(calibration, error, text):
    with pytest.raises(error, match=text):
        fastinfer.convert(mlp(), X, calibration=calibration, config="int8")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_without_a_number(value):
    model = mlp()
    with torch.no_grad():
        model[2].weight[1, 3] = value
    with pytest.raises(ValueError, match=r"parameter '2\.weight' holds NaN or infinity"):
        fastinfer.convert(model, X)


def test_meta_and_lazy_parameters():
    with pytest.raises(ValueError, match=r"'0\.weight' is on the meta device"):
        fastinfer.convert(mlp().to("meta"), X)
    with pytest.raises(ValueError, match="not initialized"):
        fastinfer.convert(nn.Sequential(nn.LazyLinear(4)))


def test_already_converted():
    fast = fastinfer.convert(mlp(), X, config="int8")
    with pytest.raises(ValueError, match="already converted"):
        fastinfer.convert(fast, X)
    with pytest.raises(ValueError, match="a submodule is already converted"):
        fastinfer.convert(nn.Sequential(fast), X)


def test_scripted_model():
    with pytest.raises(TypeError, match="TorchScript"):
        fastinfer.convert(torch.jit.script(mlp()), X)


def test_compiled_model_is_unwrapped():
    fast = fastinfer.convert(torch.compile(mlp()), X, config="int8")
    assert fast(X).shape == (2, 4)
    assert any("torch.compiled" in note for note in fastinfer.report(fast).notes)


@pytest.fixture(scope="module")
def fast():
    return fastinfer.convert(mlp(), X, config="int8")


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (torch.randn(2, 8).half(), r"input 'input': expected float32 \[\*, 8\].*got float16"),
        (torch.randn(2, 8).double(), r"got float64 \[2, 8\]"),
        (torch.ones(2, 8, dtype=torch.int64), "got int64"),
        (torch.randn(2, 8, device="meta"), "on meta"),
    ],
)
def test_wrong_dtype_or_device(fast, x, text):
    with pytest.raises(TypeError, match=text):
        fast(x)


@pytest.mark.parametrize("shape", [(2, 9), (3, 2), (4,), ()])
def test_wrong_shape(fast, shape):
    with pytest.raises(ValueError, match=r"expected inputs 'input' float32 \[\*, 8\], got"):
        fast(torch.randn(shape))


def test_wrong_arguments(fast):
    with pytest.raises(TypeError, match="missing"):
        fast()
    with pytest.raises(TypeError, match="unexpected keyword"):
        fast(X, other=1)


def test_not_for_training(fast):
    with pytest.raises(RuntimeError, match="train the original model"):
        fast.train()
    assert fast.eval() is fast and not fast.training
    for change in (lambda m: m.half(), lambda m: m.to(torch.bfloat16), lambda m: m.double()):
        with pytest.raises(RuntimeError, match="convert the original model in that dtype"):
            change(copy.deepcopy(fast))
    assert fast.float() is fast and fast.to("cpu") is fast
