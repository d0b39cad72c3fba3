"""Packed modules against the float simulation of their plan, their state and their repacking."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from layer_graph import make_layer
from torch import nn

from fastinfer import runtime
from fastinfer.compress.quantize import affine_maps
from fastinfer.compress.quantize.simulate import SimulatedLayer
from fastinfer.graph.layer import apply_activation
from fastinfer.lower.lowerings import lower_layer
from fastinfer.nn import (
    Int8Conv1d,
    Int8Conv2d,
    Int8Linear,
    Int8LinearDynamic,
    PackedModule,
    WeightOnly,
    repack,
)
from fastinfer.program import LayerPlan
from fastinfer.testing.compare import assert_equal, sqnr_db
from fastinfer.types import Activation, Epilogue, TensorQuant
from fastinfer.types.epilogue import RELU, RELU6

#: Kernel and simulation differ by float32 rounding only; in uint8 a tie may fall the other way.
FLOAT_DB, CODES_DB = 80.0, 45.0
#: Half a step is 1 / 254 of a channel's largest weight, which is at most 4 times its rms here.
WEIGHT_DB = 36.0

#: label -> (module, input shape).
LAYERS = {
    "linear": (lambda: nn.Linear(24, 17), (9, 24)),
    "linear tokens": (lambda: nn.Linear(24, 17, bias=False), (2, 5, 24)),
    "conv2d": (lambda: nn.Conv2d(6, 9, 3, stride=2, padding=1), (2, 6, 9, 8)),
    "pointwise": (lambda: nn.Conv2d(6, 9, 1, bias=False), (2, 6, 5, 4)),
    "grouped": (lambda: nn.Conv2d(6, 9, 3, groups=3, dilation=2), (2, 6, 9, 8)),
    "depthwise": (lambda: nn.Conv2d(6, 6, 3, padding=1, groups=6), (2, 6, 9, 8)),
    "conv1d": (lambda: nn.Conv1d(6, 9, 3, padding=1, stride=2), (2, 6, 11)),
    "conv1d depthwise": (lambda: nn.Conv1d(6, 6, 5, padding=2, groups=6), (2, 6, 11)),
}
EPILOGUES = {
    "identity": (Activation(), False),
    "relu": (RELU, False),
    "relu6 residual": (RELU6, True),
    "residual": (Activation(), True),
    "silu": (Activation("silu"), False),
    "hardswish residual": (Activation("hardswish"), True),
}


def axis_of(layer):
    return -1 if layer.spec.kind == "linear" else 1


def shaped(values, x, axis):
    shape = [1] * x.dim()
    shape[axis] = -1
    return torch.tensor(values, dtype=torch.float32).reshape(shape)


def encode(x, quant, axis):
    q = (x - shaped(quant.shift, x, axis)) / shaped(quant.scale, x, axis)
    q = (q.round() + quant.zero_point).clamp(0, 255).to(torch.uint8)
    return q.contiguous(memory_format=torch.channels_last) if q.dim() == 4 else q


def decode(q, quant, axis):
    scale, shift = shaped(quant.scale, q, axis), shaped(quant.shift, q, axis)
    return (q.float() - quant.zero_point) * scale + shift


def per_tensor(x):
    return affine_maps.per_tensor(float(x.min()), float(x.max()))


def per_channel(x, axis, shifted):
    rows = x.movedim(axis, 0).flatten(1)
    lo, hi = rows.amin(1).double(), rows.amax(1).double()
    if shifted:
        return affine_maps.per_channel_shifted(lo, hi, affine_maps.widths(lo, hi))
    scale = torch.maximum(-lo, hi).clamp(min=1e-6) / 127
    return TensorQuant(tuple(scale.float().tolist()), 128)


def build(label, epilogue="identity", *, channels=False, int8_out=True):
    """Return (layer, plan, x, residual) with maps from the layer's own values."""
    torch.manual_seed(len(label))
    make, shape = LAYERS[label]
    layer = make_layer(make())
    activation, has_residual = EPILOGUES[epilogue]
    layer.spec = replace(layer.spec, epilogue=Epilogue(activation, has_residual))
    axis = axis_of(layer)
    widths = torch.logspace(-1, 1, shape[axis]) if channels else torch.ones(shape[axis])
    x = torch.randn(shape) * shaped(widths.tolist(), torch.empty(shape), axis) + 0.3
    before = layer.accumulate(x)
    residual = torch.randn(before.shape) if has_residual else None
    before = before if residual is None else before + residual
    y = apply_activation(activation, before)
    shifted = layer.spec.padding == (0, 0)
    in_quant = per_channel(x, axis, shifted) if channels else per_tensor(x)
    out_quant = per_tensor(y) if int8_out else None
    residual_quant = per_tensor(residual) if has_residual and int8_out else None
    if channels and int8_out and activation.is_identity:
        out_quant = per_channel(y, axis, True)
        residual_quant = per_channel(residual, axis, True) if has_residual else None
    table = int8_out and not activation.is_clamp
    plan = LayerPlan(
        "int8",
        input=in_quant,
        residual=residual_quant,
        output=out_quant,
        preactivation=per_tensor(before) if table else None,
    )
    return layer, plan, x, residual


def run(module, layer, plan, x, residual):
    """Return the module's answer in real numbers."""
    axis = axis_of(layer)
    q = encode(x, plan.input, axis)
    if residual is not None and plan.output is not None:
        residual = encode(residual, plan.residual, axis)
    y = module(q) if residual is None else module(q, residual)
    if plan.output is None:
        assert y.dtype == torch.float32
        return y
    assert y.dtype == torch.uint8
    return decode(y, plan.output, axis)


@pytest.mark.parametrize("int8_out", [True, False])
@pytest.mark.parametrize("epilogue", EPILOGUES)
@pytest.mark.parametrize("label", LAYERS)
def test_static_equals_simulation(label, epilogue, int8_out):
    layer, plan, x, residual = build(label, epilogue, int8_out=int8_out)
    got = run(lower_layer(layer, plan), layer, plan, x, residual)
    wanted = SimulatedLayer(layer, plan)(x, residual)
    assert got.shape == wanted.shape
    assert sqnr_db(wanted, got) > (CODES_DB if int8_out else FLOAT_DB)
    assert sqnr_db(layer(x, residual), got) > 25


@pytest.mark.parametrize("epilogue", ["identity", "residual", "relu"])
@pytest.mark.parametrize("label", LAYERS)
def test_per_channel_maps(label, epilogue):
    layer, plan, x, residual = build(label, epilogue, channels=True)
    got = run(lower_layer(layer, plan), layer, plan, x, residual)
    assert sqnr_db(SimulatedLayer(layer, plan)(x, residual), got) > CODES_DB
    assert sqnr_db(layer(x, residual), got) > 25


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize(
    "activation", [Activation(), RELU, Activation("silu")], ids=lambda a: a.name
)
@pytest.mark.parametrize("label", LAYERS)
def test_dynamic(label, activation, residual):
    torch.manual_seed(1)
    make, shape = LAYERS[label]
    layer = make_layer(make())
    layer.spec = replace(layer.spec, epilogue=Epilogue(activation, residual))
    x = torch.randn(shape)
    other = torch.randn_like(layer.accumulate(x)) if residual else None
    plan = LayerPlan("int8-dynamic")
    got = lower_layer(layer, plan)(x, other)
    wanted = SimulatedLayer(layer, plan)(x, other)
    assert got.shape == wanted.shape and sqnr_db(wanted, got) > CODES_DB
    assert sqnr_db(layer(x, other), got) > 30


@pytest.mark.parametrize("precision", ["int8-weight-only", "bf16", "fp32"])
@pytest.mark.parametrize("label", LAYERS)
def test_float_computation(label, precision):
    torch.manual_seed(1)
    make, shape = LAYERS[label]
    layer = make_layer(make())
    layer.spec = replace(layer.spec, epilogue=Epilogue(RELU, True))
    x = torch.randn(shape)
    other = torch.randn_like(layer.accumulate(x))
    module = lower_layer(layer, LayerPlan(precision))
    got = module(x, other)
    assert got.dtype == torch.float32 and sqnr_db(layer(x, other), got) > 35
    assert isinstance(module, WeightOnly) == (precision == "int8-weight-only")


def test_sample_is_independent_of_its_batch():
    torch.manual_seed(1)
    for label in ("conv2d", "linear tokens", "conv1d"):
        make, shape = LAYERS[label]
        module = lower_layer(make_layer(make()), LayerPlan("int8-dynamic"))
        x = torch.randn(shape) * torch.tensor([1.0, 50.0]).view(2, *[1] * (len(shape) - 1))
        assert_equal(module(x)[:1], module(x[:1]))


PACKED = ["linear", "conv2d", "depthwise", "conv1d"]


@pytest.mark.parametrize("epilogue", ["identity", "hardswish residual"])
@pytest.mark.parametrize("label", PACKED)
def test_state_dict_round_trip(label, epilogue):
    layer, plan, x, residual = build(label, epilogue)
    module = lower_layer(layer, plan)
    wanted = run(module, layer, plan, x, residual)
    other_layer = copy.deepcopy(layer)
    other_layer.weight.data.mul_(-0.5)
    other = lower_layer(other_layer, replace(plan, output=replace_zero(plan.output)))
    state = {name: value.clone() for name, value in module.state_dict().items()}
    assert "packed" not in state and state["weight"].dtype == torch.int8
    other.load_state_dict(state)
    assert_equal(run(other, layer, plan, x, residual), wanted)
    assert_equal(copy.deepcopy(module).packed, module.packed)


def replace_zero(quant):
    return TensorQuant(quant.scale, 255 - quant.zero_point, quant.shift)


def test_state_dict_that_does_not_fit():
    layer, plan, *_ = build("linear")
    module = lower_layer(layer, plan)
    state = module.state_dict()
    with pytest.raises(RuntimeError, match="multiplier"):
        module.load_state_dict({k: v for k, v in state.items() if k != "multiplier"})
    with pytest.raises(RuntimeError, match=r"weight: expected \[17, 24\], got \[17, 23\]"):
        module.load_state_dict({**state, "weight": state["weight"][:, :23].contiguous()})
    with pytest.raises(RuntimeError, match="extra"):
        module.load_state_dict({**state, "extra": torch.zeros(1)})


def test_repack(every_isa):
    if len(every_isa) < 2:
        pytest.skip("this CPU has one instruction set")
    parts = []
    for label in PACKED:
        layer, plan, x, residual = build(label)
        module = lower_layer(layer, plan)
        parts.append((module, layer, plan, x, residual, run(module, layer, plan, x, residual)))
    model = nn.ModuleList([part[0] for part in parts])
    before = [module.packed.clone() for module in model]
    for isa in reversed(every_isa):
        runtime.set_isa(isa)
        assert repack(model) == len(PACKED)
        for *call, wanted in parts:
            assert_equal(run(*call), wanted)
    runtime.set_isa(every_isa[-1])
    repack(model)
    for module, packed in zip(model, before, strict=True):
        assert_equal(module.packed, packed)


def test_modules_stay_int8_on_cpu():
    layer, plan, *_ = build("linear")
    module = lower_layer(layer, plan)
    packed = module.packed
    for same in (module.half(), module.double(), module.to("cpu"), module.float()):
        assert same.packed is packed
    with pytest.raises(RuntimeError, match="packed weights run on cpu and cuda only"):
        module.to("meta")


def test_classes_and_description():
    for label, kind in (("linear", Int8Linear), ("conv2d", Int8Conv2d), ("conv1d", Int8Conv1d)):
        layer, plan, *_ = build(label)
        module = lower_layer(layer, plan)
        assert type(module) is kind and isinstance(module, PackedModule)
        assert "int8" in repr(module) and not list(module.parameters())
    module = lower_layer(make_layer(nn.Linear(5, 3)), LayerPlan("int8-dynamic"))
    assert isinstance(module, Int8LinearDynamic) and module.weight.shape == (3, 5)
    assert module.in_features == 5 and module.out_features == 3 and module.bias.shape == (3,)


@pytest.mark.parametrize("label", LAYERS)
def test_weight_of_a_dynamic_layer(label):
    """Code around a layer may read its weight: it is the float one, rounded."""
    torch.manual_seed(0)
    layer = LAYERS[label][0]()
    module = lower_layer(make_layer(layer), LayerPlan("int8-dynamic"))
    weight = layer.weight.detach()
    assert module.weight.shape == weight.shape and module.weight.dtype == torch.float32
    assert sqnr_db(weight, module.weight) > WEIGHT_DB
    bias = torch.zeros(len(weight)) if layer.bias is None else layer.bias.detach()
    assert_equal(module.bias, bias)
