"""Folding: from a float layer and the affine maps round it to the integers an int8 op reads.

Everything is computed in float64 and rounded once.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fastinfer.graph.layer import Layer, LayerSpec, apply_activation
from fastinfer.program import LayerPlan
from fastinfer.types import Activation, TensorQuant
from fastinfer.types.folded import FoldedLayer

#: A folded bias stays under 2^29, so that bias and products share int32 safely.
BIAS_LIMIT = 2.0**29
ACCUMULATOR_LIMIT = 2**31 - 1


def op_name(spec: LayerSpec) -> str:
    """Return the prepack op of a layer: linear, conv2d or depthwise_conv2d."""
    if spec.kind == "linear":
        return "linear"
    return "depthwise_conv2d" if spec.is_depthwise else "conv2d"


def _weight_2d(layer: Layer) -> Tensor:
    """Return the weight as the op wants it: [N, K] or [N, C/groups, kh, kw], float64."""
    weight = layer.weight.detach().double()
    return weight.unsqueeze(2) if layer.spec.kind == "conv1d" else weight


def _expand(values: tuple[float, ...], length: int) -> Tensor:
    """Return per-tensor or per-channel values as [length] float64."""
    t = torch.tensor(values, dtype=torch.float64)
    return t.expand(length) if t.numel() == 1 else t


def per_input(values: Tensor, spec: LayerSpec) -> Tensor:
    """Return [C] input-channel values shaped to multiply the weight, [N or 1, C/groups, ...]."""
    if spec.kind == "linear":
        return values[None, :]
    per_group = values.reshape(spec.groups, 1, -1)
    repeated = per_group.expand(-1, spec.out_features // spec.groups, -1)
    return repeated.reshape(spec.out_features, -1)[:, :, None, None]


def weight_extent(layer: Layer) -> Tensor:
    """Return the largest weight magnitude each input channel meets, [C] float64."""
    spec = layer.spec
    weight = _weight_2d(layer).abs()
    if spec.kind == "linear":
        return weight.amax(0)
    per_group = weight.reshape(spec.groups, -1, *weight.shape[1:]).flatten(3).amax(3)
    return per_group.amax(1).reshape(-1)


def quantize_weight(weight: Tensor, floor: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return (int8 weight in -127..127, scale [N] float64), symmetric per output channel.

    weight: [N, ...] float64; floor: [N] smallest scale allowed.
    """
    scale = weight.abs().flatten(1).amax(1) / 127
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    if floor is not None:
        scale = torch.maximum(scale, floor)
    shape = [-1] + [1] * (weight.dim() - 1)
    q = torch.round(weight / scale.reshape(shape)).clamp_(-127, 127).to(torch.int8)
    return q, scale


def shift_term(layer: Layer, quant: TensorQuant, weight: Tensor) -> Tensor:
    """Return what the shift of an input adds to each output, [N] in weight's dtype.

    weight: in the layer's own shape; the layer is not padded.
    """
    spec = layer.spec
    wide = weight.unsqueeze(2) if spec.kind == "conv1d" else weight
    shift = per_input(_expand(quant.shift, spec.in_features), spec)
    return (wide.double() * shift).flatten(1).sum(1).to(weight.dtype)


def activation_table(activation: Activation, before: TensorQuant, after: TensorQuant) -> Tensor:
    """Return the 256 output codes of an activation on per-tensor int8, uint8."""
    codes = torch.arange(256, dtype=torch.float64)
    x = before.scale[0] * (codes - before.zero_point) + before.shift[0]
    y = (apply_activation(activation, x) - after.shift[0]) / after.scale[0]
    return torch.clamp(torch.round(y) + after.zero_point, 0, 255).to(torch.uint8)


def fold_static(layer: Layer, plan: LayerPlan) -> FoldedLayer:
    """Return the integers of a static int8 layer.

    Raises:
        ValueError: an accumulator could leave int32, or a shifted input would be padded.
    """
    spec = layer.spec
    assert plan.input is not None
    n, activation = spec.out_features, spec.epilogue.activation
    weight = _weight_2d(layer)
    shift = _expand(plan.input.shift, spec.in_features)
    if bool((shift != 0).any()) and spec.padding != (0, 0):
        raise ValueError("int8: a shifted input cannot be padded")
    bias = torch.zeros(n, dtype=torch.float64) if layer.bias is None else layer.bias.double()
    if plan.bias_correction:
        bias = bias + torch.tensor(plan.bias_correction, dtype=torch.float64)
    bias = bias + shift_term(layer, plan.input, layer.weight.detach().double())

    table = None
    target = plan.output
    if target is not None and not activation.is_clamp:
        assert plan.preactivation is not None
        table = activation_table(activation, plan.preactivation, target)
        target = plan.preactivation
    out_scale = torch.ones(n, dtype=torch.float64)
    residual_multiplier = None
    if target is not None:
        out_scale = _expand(target.scale, n)
        bias = bias - _expand(target.shift, n)
        if spec.epilogue.has_residual:
            assert plan.residual is not None
            r = plan.residual
            r_scale = _expand(r.scale, n)
            bias = bias - r_scale * r.zero_point + _expand(r.shift, n)
            residual_multiplier = (r_scale / out_scale).float()
    elif spec.epilogue.has_residual:
        # A float residual is added as it is; the values only say that there is one.
        residual_multiplier = torch.ones(n)

    folded = weight * per_input(_expand(plan.input.scale, spec.in_features), spec)
    q, scale = quantize_weight(folded, floor=bias.abs() / BIAS_LIMIT)
    sums = q.flatten(1).long().sum(1)
    integer_bias = torch.round(bias / scale).long() - plan.input.zero_point * sums
    worst = 255 * q.flatten(1).long().abs().sum(1) + integer_bias.abs()
    if int(worst.max()) > ACCUMULATOR_LIMIT:
        raise ValueError("int8: an accumulator could leave int32 (too many inputs per output)")
    qmin, qmax = code_bounds(activation, target) if table is None else (0, 255)
    plain = target is None and activation.is_clamp
    lo, hi = activation.bounds if plain else (-math.inf, math.inf)
    return FoldedLayer(
        op=op_name(spec),
        weight=q,
        bias=integer_bias.to(torch.int32),
        multiplier=(scale / out_scale).float(),
        residual_multiplier=residual_multiplier,
        table=table,
        groups=spec.groups,
        x_zero_point=plan.input.zero_point,
        out_zero_point=0 if target is None else target.zero_point,
        qmin=qmin,
        qmax=qmax,
        clamp_min=lo,
        clamp_max=hi,
        float_output=target is None,
    )


def code_bounds(activation: Activation, target: TensorQuant | None) -> tuple[int, int]:
    """Return (qmin, qmax) of a clamp on uint8 codes."""
    if target is None or activation.is_identity:
        return 0, 255
    lo, hi = activation.bounds
    scale, zero_point = target.scale[0], target.zero_point
    if not target.is_per_tensor:
        # Per-channel maps are chosen so that code 0 is lo = 0 and no scale passes hi / 255.
        return (zero_point if lo == 0 else 0), 255
    qmin = 0 if lo == -math.inf else round(lo / scale) + zero_point
    qmax = 255 if hi == math.inf else round(hi / scale) + zero_point
    return min(max(qmin, 0), 255), min(max(qmax, 0), 255)


def fold_dynamic(layer: Layer) -> FoldedLayer:
    """Return the integers of a layer whose input is quantized at each call; it answers in float."""
    spec = layer.spec
    n = spec.out_features
    q, scale = quantize_weight(_weight_2d(layer))
    if 255 * int(q.flatten(1).long().abs().sum(1).max()) > ACCUMULATOR_LIMIT:
        raise ValueError("int8: an accumulator could leave int32 (too many inputs per output)")
    bias = torch.zeros(n) if layer.bias is None else layer.bias.detach().float()
    plain = spec.epilogue.activation.is_clamp and not spec.epilogue.has_residual
    lo, hi = spec.epilogue.activation.bounds if plain else (-math.inf, math.inf)
    return FoldedLayer(
        op=op_name(spec),
        weight=q,
        bias=torch.zeros(n, dtype=torch.int32),
        multiplier=scale.float(),
        float_bias=bias.clone(),
        groups=spec.groups,
        clamp_min=lo,
        clamp_max=hi,
        float_output=True,
    )


def dequantized_weight(layer: Layer, folded: FoldedLayer, plan: LayerPlan) -> Tensor:
    """Return the weight an int8 layer effectively multiplies by, in the layer's shape, float32."""
    spec = layer.spec
    shape = [-1] + [1] * (folded.weight.dim() - 1)
    scale = folded.multiplier.double()
    if plan.input is not None:
        out = (
            plan.output if plan.preactivation is None or plan.output is None else plan.preactivation
        )
        if out is not None:
            scale = scale * _expand(out.scale, spec.out_features)
        weight = folded.weight.double() * scale.reshape(shape)
        weight = weight / per_input(_expand(plan.input.scale, spec.in_features), spec)
    else:
        weight = folded.weight.double() * scale.reshape(shape)
    return weight.reshape(layer.weight.shape).float()
