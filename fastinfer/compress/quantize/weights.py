"""Folding: from a float layer and the affine maps round it to the integers an int8 op reads.

Everything is computed in float64 and rounded once. A weight [N, ...] stays on its layer's device;
what there is one of for a channel or a code, [N], [C] or [256], is on the CPU, where maps are made.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from fastinfer.graph.layer import Layer, LayerSpec, apply_activation
from fastinfer.program import LayerPlan
from fastinfer.types import Activation, TensorQuant
from fastinfer.types.folded import FoldedLayer, KnownWeights, QuantizedWeight

#: A folded bias stays under 2^29, so that bias and products share int32 safely.
BIAS_LIMIT = 2.0**29
ACCUMULATOR_LIMIT = 2**31 - 1
#: Elements of a weight worked on at a time: their float64 stay in the cache, and the process gets
#: no new pages for each step. Half the time of whole weights (2.4M elements, Zen 3, 2026-11).
BLOCK = 2**17
#: The same on a GPU, where a block is a dozen launches.
GPU_BLOCK = 2**24


def op_name(spec: LayerSpec) -> str:
    """Return the prepack op of a layer: linear, conv2d or depthwise_conv2d."""
    if spec.kind == "linear":
        return "linear"
    return "depthwise_conv2d" if spec.is_depthwise else "conv2d"


def _weight_2d(layer: Layer) -> Tensor:
    """Return the weight as the op wants it: [N, K] or [N, C/groups, kh, kw], in its own dtype."""
    weight = layer.weight.detach()
    return weight.unsqueeze(2) if layer.spec.kind == "conv1d" else weight


def _blocks(weight: Tensor) -> Iterator[slice]:
    """Yield the output channels of a weight, some at a time."""
    size = BLOCK if weight.device.type == "cpu" else GPU_BLOCK
    step = max(1, size // max(weight.shape[1:].numel(), 1))
    for start in range(0, weight.shape[0], step):
        yield slice(start, start + step)


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
        return weight.amax(0).double().cpu()
    per_group = weight.reshape(spec.groups, -1, *weight.shape[1:]).flatten(3).amax(3)
    return per_group.amax(1).reshape(-1).double().cpu()


def quantize_weight(weight: Tensor, floor: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return (int8 weight in -127..127, scale [N] float64), symmetric per output channel.

    weight: [N, ...] float; floor: [N] smallest scale allowed. Both are on the weight's device.
    """
    quantized = _quantize(weight, floor)
    return quantized.weight, quantized.scale.to(weight.device)


def _quantize(
    weight: Tensor, floor: Tensor | None = None, factor: Tensor | None = None
) -> QuantizedWeight:
    """Return weight * factor in float64, quantized; factor: [N or 1, ...] float64."""
    n, device = weight.shape[0], weight.device
    q = torch.empty(weight.shape, dtype=torch.int8, device=device)
    scale = torch.empty(n, dtype=torch.float64, device=device)
    sums, magnitudes = (torch.empty(n, dtype=torch.int64, device=device) for _ in range(2))
    floor = None if floor is None else floor.to(device)
    factor = None if factor is None else factor.to(device)
    column = [-1] + [1] * (weight.dim() - 1)
    for rows in _blocks(weight):
        block = weight[rows].double()
        if factor is not None:
            block = block * (factor if factor.shape[0] == 1 else factor[rows])
        step = block.abs().flatten(1).amax(1) / 127
        step = torch.where(step > 0, step, torch.ones_like(step))
        if floor is not None:
            step = torch.maximum(step, floor[rows])
        integers = (block / step.reshape(column)).round_().clamp_(-127, 127)
        q[rows], scale[rows] = integers, step
        # float64 holds these sums exactly.
        integers = integers.flatten(1)
        sums[rows], magnitudes[rows] = integers.sum(1), integers.abs().sum(1)
    return QuantizedWeight(q, scale.cpu(), sums.cpu(), magnitudes.cpu())


def shift_term(layer: Layer, quant: TensorQuant, weight: Tensor) -> Tensor:
    """Return what the shift of an input adds to each output, [N] in weight's dtype.

    weight: in the layer's own shape; the layer is not padded.
    """
    spec = layer.spec
    wide = weight.unsqueeze(2) if spec.kind == "conv1d" else weight
    shift = per_input(_expand(quant.shift, spec.in_features), spec).to(wide.device)
    return (wide.double() * shift).flatten(1).sum(1).to(weight.dtype)


def activation_table(activation: Activation, before: TensorQuant, after: TensorQuant) -> Tensor:
    """Return the 256 output codes of an activation on per-tensor int8, uint8."""
    codes = torch.arange(256, dtype=torch.float64)
    x = before.scale[0] * (codes - before.zero_point) + before.shift[0]
    y = (apply_activation(activation, x) - after.shift[0]) / after.scale[0]
    return torch.clamp(torch.round(y) + after.zero_point, 0, 255).to(torch.uint8)


def fold_static(layer: Layer, plan: LayerPlan, known: KnownWeights | None = None) -> FoldedLayer:
    """Return the integers of a static int8 layer; known: weights quantized before.

    Raises:
        ValueError: an accumulator could leave int32, or a shifted input would be padded.
    """
    spec = layer.spec
    assert plan.input is not None
    n, activation = spec.out_features, spec.epilogue.activation
    is_shifted = any(plan.input.shift)
    if is_shifted and spec.padding != (0, 0):
        raise ValueError("int8: a shifted input cannot be padded")
    bias = torch.zeros(n, dtype=torch.float64)
    if layer.bias is not None:
        bias = layer.bias.detach().cpu().double()
    if plan.bias_correction:
        bias = bias + torch.tensor(plan.bias_correction, dtype=torch.float64)
    if is_shifted:
        bias = bias + shift_term(layer, plan.input, layer.weight.detach().double()).cpu()

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

    weight = _weight_2d(layer)
    factor = per_input(_expand(plan.input.scale, spec.in_features), spec)
    known = known or KnownWeights()
    quantized = known.get(layer, plan.input.scale, lambda: _quantize(weight, factor=factor))
    floor = bias.abs() / BIAS_LIMIT
    if bool((floor > quantized.scale).any()):
        quantized = _quantize(weight, floor, factor)
    scale = quantized.scale
    integer_bias = torch.round(bias / scale).long() - plan.input.zero_point * quantized.sums
    worst = 255 * quantized.magnitudes + integer_bias.abs()
    if int(worst.max()) > ACCUMULATOR_LIMIT:
        raise ValueError("int8: an accumulator could leave int32 (too many inputs per output)")
    qmin, qmax = code_bounds(activation, target) if table is None else (0, 255)
    plain = target is None and activation.is_clamp
    lo, hi = activation.bounds if plain else (-math.inf, math.inf)
    return FoldedLayer(
        op=op_name(spec),
        weight=quantized.weight,
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


def fold_dynamic(layer: Layer, known: KnownWeights | None = None) -> FoldedLayer:
    """Return the integers of a layer whose input is quantized at each call; it answers in float."""
    spec = layer.spec
    n = spec.out_features
    known = known or KnownWeights()
    quantized = known.get(layer, (), lambda: _quantize(_weight_2d(layer)))
    if 255 * int(quantized.magnitudes.max()) > ACCUMULATOR_LIMIT:
        raise ValueError("int8: an accumulator could leave int32 (too many inputs per output)")
    bias = torch.zeros(n) if layer.bias is None else layer.bias.detach().cpu().float()
    plain = spec.epilogue.activation.is_clamp and not spec.epilogue.has_residual
    lo, hi = spec.epilogue.activation.bounds if plain else (-math.inf, math.inf)
    return FoldedLayer(
        op=op_name(spec),
        weight=quantized.weight,
        bias=torch.zeros(n, dtype=torch.int32),
        multiplier=quantized.scale.float(),
        float_bias=bias.clone(),
        groups=spec.groups,
        clamp_min=lo,
        clamp_max=hi,
        float_output=True,
    )


def dequantized_weight(layer: Layer, folded: FoldedLayer, plan: LayerPlan) -> Tensor:
    """Return the weight an int8 layer effectively multiplies by, in the layer's shape, float32."""
    spec = layer.spec
    scale = folded.multiplier.double()
    factor = None
    if plan.input is not None:
        out = (
            plan.output if plan.preactivation is None or plan.output is None else plan.preactivation
        )
        if out is not None:
            scale = scale * _expand(out.scale, spec.out_features)
        factor = per_input(_expand(plan.input.scale, spec.in_features), spec)
    device = folded.weight.device
    scale = scale.reshape([-1] + [1] * (folded.weight.dim() - 1)).to(device)
    factor = None if factor is None else factor.to(device)
    result = torch.empty(folded.weight.shape, device=device)
    for rows in _blocks(folded.weight):
        block = folded.weight[rows].double() * scale[rows]
        if factor is not None:
            block = block / (factor if factor.shape[0] == 1 else factor[rows])
        result[rows] = block
    return result.reshape(layer.weight.shape)
