"""Folding a float layer into integers: bounds, the floor of dead channels, shifts, tables."""

from __future__ import annotations

import importlib
import math
from dataclasses import replace

import pytest
import torch
from layer_graph import make_layer
from torch import nn

from fastinfer.compress.quantize.weights import (
    ACCUMULATOR_LIMIT,
    BIAS_LIMIT,
    activation_table,
    dequantized_weight,
    fold_dynamic,
    fold_static,
    op_name,
    per_input,
    quantize_weight,
    shift_term,
    weight_extent,
)
from fastinfer.graph.layer import Layer, LayerSpec, apply_activation
from fastinfer.program import LayerPlan
from fastinfer.testing.compare import assert_equal, sqnr_db
from fastinfer.types import Activation, Epilogue, TensorQuant
from fastinfer.types.epilogue import ACTIVATIONS, RELU, RELU6
from fastinfer.types.folded import KnownWeights

# The module itself, for its block size.
WEIGHTS = importlib.import_module("fastinfer.compress.quantize.weights")
X = TensorQuant((0.02,), 128)
OUT = TensorQuant((0.05,), 100)


def seeded(make, *args, **kwargs):
    torch.manual_seed(5)
    return make_layer(make(*args, **kwargs))


def with_epilogue(layer, activation=None, residual=False):
    layer.spec = replace(
        layer.spec, epilogue=Epilogue(activation or Activation(), has_residual=residual)
    )
    return layer


def test_quantize_weight():
    torch.manual_seed(0)
    weight = torch.randn(5, 3, 3, dtype=torch.float64)
    weight[2] = 0
    q, scale = quantize_weight(weight)
    assert q.dtype == torch.int8 and q.shape == weight.shape
    assert int(q.abs().max()) == 127 and int(q[2].abs().max()) == 0
    assert bool(((q * scale.view(-1, 1, 1) - weight).abs() <= scale.view(-1, 1, 1) / 2).all())
    assert bool((quantize_weight(weight, floor=torch.ones(5))[1] >= 1).all())


@pytest.mark.parametrize("make", [(nn.Linear, 20, 6), (nn.Conv2d, 6, 10, 3), (nn.Conv2d, 9, 9, 3)])
def test_a_weight_is_worked_on_by_blocks(make, monkeypatch):
    layer = seeded(*make, **({"groups": 9} if make[1] == 9 else {}))
    scales = tuple(0.01 * (1 + c) for c in range(layer.spec.in_features))
    plan = LayerPlan("int8", input=TensorQuant(scales, 3), output=OUT)
    whole = fold_static(layer, plan)
    wanted = dequantized_weight(layer, whole, plan)
    monkeypatch.setattr(WEIGHTS, "BLOCK", 2 * layer.weight[0].numel() + 1)
    assert len(list(WEIGHTS._blocks(layer.weight))) == (layer.spec.out_features + 1) // 2
    by_two = fold_static(layer, plan)
    for part in ("weight", "bias", "multiplier"):
        assert_equal(getattr(by_two, part), getattr(whole, part))
    assert_equal(dequantized_weight(layer, whole, plan), wanted)


def test_a_weight_is_quantized_once_for_each_input_map(monkeypatch):
    layer, other = seeded(nn.Linear, 20, 6), seeded(nn.Linear, 20, 6)
    made, quantize = [], WEIGHTS._quantize

    def counted(*args, **kwargs):
        made.append(args[0])
        return quantize(*args, **kwargs)

    monkeypatch.setattr(WEIGHTS, "_quantize", counted)
    known = KnownWeights()
    plan = LayerPlan("int8", input=X, output=OUT)
    corrected = replace(plan, bias_correction=(0.5,) * 6, output=TensorQuant((0.1,), 7))
    first = fold_static(layer, plan, known)
    again = fold_static(layer, corrected, known)
    assert len(made) == 1 and again.weight is first.weight
    alone = fold_static(layer, corrected)
    for part in ("weight", "bias", "multiplier"):
        assert_equal(getattr(again, part), getattr(alone, part))
    made.clear()
    fold_static(other, plan, known)  # another layer
    fold_static(layer, replace(plan, input=TensorQuant((0.03,), 128)), known)  # another map
    fold_dynamic(layer, known)
    assert len(made) == 3
    # A bias too large for the weight's scale makes it coarser, whatever was known.
    with torch.no_grad():
        layer.bias.fill_(1e12)
    assert_equal(fold_static(layer, plan, known).weight, fold_static(layer, plan).weight)


KINDS = [
    (nn.Linear, (20, 6), {}, "linear"),
    (nn.Conv2d, (4, 6, 3), {"groups": 2}, "conv2d"),
    (nn.Conv2d, (6, 6, 3), {"groups": 6}, "depthwise_conv2d"),
    (nn.Conv1d, (4, 6, 3), {}, "conv2d"),
]


@pytest.mark.parametrize(("make", "sizes", "more", "op"), KINDS)
def test_fold_static(make, sizes, more, op):
    layer = seeded(make, *sizes, **more)
    plan = LayerPlan("int8", input=X, output=OUT)
    folded = fold_static(layer, plan)
    assert folded.op == op == op_name(layer.spec) and not folded.float_output
    worst = 255 * folded.weight.long().flatten(1).abs().sum(1) + folded.bias.long().abs()
    assert int(worst.max()) <= ACCUMULATOR_LIMIT
    assert sqnr_db(layer.weight, dequantized_weight(layer, folded, plan)) > 40
    # The accumulator of an input that is zero everywhere is the float bias.
    zero = folded.bias.long() + X.zero_point * folded.weight.flatten(1).long().sum(1)
    real = zero * folded.multiplier.double() * OUT.scale[0]
    step = folded.multiplier.double() * OUT.scale[0]
    assert bool(((real - layer.bias.double()).abs() <= step).all())


def test_dead_channels_keep_their_bias():
    """A channel of tiny weights must not push its bias out of int32."""
    layer = seeded(nn.Linear, 16, 4)
    layer.weight.data[1] = 0
    layer.weight.data[2] = 1e-12
    layer.bias.data[:] = torch.tensor([0.1, 5.0, -7.0, 1e4])
    folded = fold_static(layer, LayerPlan("int8", input=X))
    at_zero = folded.bias.long() + X.zero_point * folded.weight.long().sum(1)
    assert int(at_zero.abs().max()) <= BIAS_LIMIT
    real = at_zero * folded.multiplier.double()
    assert torch.allclose(real, layer.bias.double(), rtol=1e-6, atol=1e-3)


def test_accumulator_that_could_overflow_is_refused():
    wide = LayerSpec("linear", 1, 70_000)
    layer = Layer(wide, torch.ones(1, 70_000), None)
    with pytest.raises(ValueError, match="int32"):
        fold_static(layer, LayerPlan("int8", input=X))
    with pytest.raises(ValueError, match="int32"):
        fold_dynamic(layer)


def test_clamps_become_code_bounds():
    for activation, wanted in ((RELU, (100, 255)), (RELU6, (100, 220)), (Activation(), (0, 255))):
        layer = with_epilogue(seeded(nn.Linear, 8, 4), activation)
        folded = fold_static(layer, LayerPlan("int8", input=X, output=OUT))
        assert (folded.qmin, folded.qmax) == wanted
    layer = with_epilogue(seeded(nn.Linear, 8, 4), RELU6)
    folded = fold_static(layer, LayerPlan("int8", input=X))
    assert folded.float_output and (folded.clamp_min, folded.clamp_max) == (0.0, 6.0)


def test_residual_zero_point_is_in_the_bias():
    layer = with_epilogue(seeded(nn.Linear, 8, 4), residual=True)
    residual = TensorQuant((0.1,), 30)
    plan = LayerPlan("int8", input=X, output=OUT, residual=residual)
    plain = fold_static(layer, replace(plan, residual=TensorQuant((0.1,), 0)))
    folded = fold_static(layer, plan)
    assert_equal(folded.residual_multiplier, torch.full((4,), 0.1 / 0.05))
    moved = (folded.bias.long() - plain.bias.long()) * folded.multiplier.double() * OUT.scale[0]
    assert torch.allclose(moved, torch.full((4,), -3.0, dtype=torch.float64), atol=0.01)
    floating = fold_static(layer, LayerPlan("int8", input=X))
    assert floating.float_output and floating.residual_multiplier is not None


def test_shift():
    layer = seeded(nn.Conv2d, 3, 4, 3)
    shift = (0.5, -1.0, 2.0)
    quant = TensorQuant((0.1, 0.2, 0.3), 128, shift)
    x = torch.tensor(shift, dtype=torch.float64).view(1, 3, 1, 1).expand(1, 3, 3, 3)
    wanted = torch.nn.functional.conv2d(x, layer.weight.double()).flatten()
    assert torch.allclose(shift_term(layer, quant, layer.weight.detach().double()), wanted)
    fold_static(layer, LayerPlan("int8", input=quant))
    padded = seeded(nn.Conv2d, 3, 4, 3, padding=1)
    with pytest.raises(ValueError, match="padded"):
        fold_static(padded, LayerPlan("int8", input=quant))


@pytest.mark.parametrize("name", [n for n in ACTIVATIONS if n not in ("identity", "clamp")])
def test_activation_table(name):
    before, after = TensorQuant((0.05,), 120), TensorQuant((0.04,), 10)
    activation = Activation(name, (0.3, 0.2)[: ACTIVATIONS[name]])
    table = activation_table(activation, before, after)
    x = 0.05 * (torch.arange(256) - 120.0)
    wanted = apply_activation(activation, x.double()).clamp(0.04 * (0 - 10), 0.04 * (255 - 10))
    assert table.dtype == torch.uint8 and table.shape == (256,)
    assert float((0.04 * (table.float() - 10) - wanted).abs().max()) <= 0.0201


def test_fold_dynamic():
    layer = with_epilogue(seeded(nn.Linear, 8, 4, bias=False), RELU)
    folded = fold_dynamic(layer)
    assert folded.float_output and (folded.clamp_min, folded.clamp_max) == (0.0, math.inf)
    assert_equal(folded.bias, torch.zeros(4, dtype=torch.int32))
    assert_equal(folded.float_bias, torch.zeros(4))
    with_residual = fold_dynamic(with_epilogue(layer, RELU, residual=True))
    assert with_residual.clamp_min == -math.inf  # the residual comes before the clamp


def test_channels_of_groups():
    spec = LayerSpec("conv2d", 4, 6, (1, 1), groups=2)
    values = torch.arange(6.0)
    assert per_input(values, spec)[:, :, 0, 0].tolist() == [[0, 1, 2]] * 2 + [[3, 4, 5]] * 2
    weight = torch.tensor([[1.0, 2, 3], [4, 0, -5], [-6, 7, 8], [9, 1, 1]]).view(4, 3, 1, 1)
    assert weight_extent(Layer(spec, weight, None)).tolist() == [4, 2, 5, 9, 7, 8]
