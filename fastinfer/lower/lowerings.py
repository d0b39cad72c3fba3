"""LOWERINGS: which module serves a layer of a kind at a precision. One row each."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import inf

import torch.nn.functional as F
from torch import Tensor, nn

from fastinfer.compress.quantize.weights import fold_dynamic, fold_static, quantize_weight
from fastinfer.graph.layer import Layer, LayerSpec, activate, apply_activation
from fastinfer.nn import (
    Bf16,
    BoundConv,
    ConvGeometry,
    InDtype,
    Int8Conv1d,
    Int8Conv1dDynamic,
    Int8Conv2d,
    Int8Conv2dDynamic,
    Int8Linear,
    Int8LinearDynamic,
    SparseFloat,
    WeightOnly,
)
from fastinfer.program import LayerPlan
from fastinfer.types.device import HALVES
from fastinfer.types.folded import KnownWeights
from fastinfer.types.sparse_float import SparseFloatWeight

Lowering = Callable[[Layer, LayerPlan, KnownWeights], nn.Module]


def _geometry(spec: LayerSpec) -> ConvGeometry:
    return ConvGeometry(spec.kernel_size, spec.stride, spec.padding, spec.dilation)


def _activation(
    layer: Layer, *, clamps_too: bool, apply: Callable[..., Tensor] = apply_activation
) -> Callable[[Tensor], Tensor] | None:
    """Return the activation that runs after the op, or None when the op does it."""
    activation = layer.spec.epilogue.activation
    if activation.is_identity or (activation.is_clamp and not clamps_too):
        return None
    return partial(apply, activation)


def _compute(spec: LayerSpec) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
    if spec.kind == "linear":
        return F.linear
    one = spec.kind == "conv1d"

    def size(pair: tuple[int, int]) -> int | tuple[int, int]:
        return pair[1] if one else pair

    return BoundConv(
        1 if one else 2,
        stride=size(spec.stride),
        padding=size(spec.padding),
        dilation=size(spec.dilation),
        groups=spec.groups,
    )


def _static_linear(layer: Layer, plan: LayerPlan, known: KnownWeights) -> nn.Module:
    return _with_activation(Int8Linear(fold_static(layer, plan, known)), layer, plan)


def _static_conv2d(layer: Layer, plan: LayerPlan, known: KnownWeights) -> nn.Module:
    return _with_activation(
        Int8Conv2d(fold_static(layer, plan, known), _geometry(layer.spec)), layer, plan
    )


def _static_conv1d(layer: Layer, plan: LayerPlan, known: KnownWeights) -> nn.Module:
    return _with_activation(
        Int8Conv1d(fold_static(layer, plan, known), _geometry(layer.spec)), layer, plan
    )


class ThenActivation(nn.Module):
    """A packed module that answers in float, followed by an activation that is no clamp."""

    def __init__(self, module: nn.Module, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.module = module
        self._activation = activation

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Return activation(module(x, residual))."""
        return self._activation(self.module(x, residual))


def _with_activation(module: nn.Module, layer: Layer, plan: LayerPlan) -> nn.Module:
    activation = _activation(layer, clamps_too=False, apply=activate)
    if plan.output is not None or activation is None:
        return module
    return ThenActivation(module, activation)


def _dynamic_activation(layer: Layer) -> Callable[[Tensor], Tensor] | None:
    # A residual comes before the clamp, so then the op cannot do it.
    has_residual = layer.spec.epilogue.has_residual
    return _activation(layer, clamps_too=has_residual, apply=activate)


def _dynamic_linear(layer: Layer, plan: LayerPlan, known: KnownWeights) -> nn.Module:
    return Int8LinearDynamic(fold_dynamic(layer, known), _dynamic_activation(layer))


def _dynamic_conv2d(layer: Layer, plan: LayerPlan, known: KnownWeights) -> nn.Module:
    return Int8Conv2dDynamic(
        fold_dynamic(layer, known), _geometry(layer.spec), _dynamic_activation(layer)
    )


def _dynamic_conv1d(layer: Layer, plan: LayerPlan, known: KnownWeights) -> nn.Module:
    return Int8Conv1dDynamic(
        fold_dynamic(layer, known), _geometry(layer.spec), _dynamic_activation(layer)
    )


def _weight_only(layer: Layer, plan: LayerPlan, known: KnownWeights) -> nn.Module:
    weight, scale = quantize_weight(layer.weight.detach())
    return WeightOnly(
        weight,
        scale.to(layer.weight.dtype),
        layer.bias,
        _compute(layer.spec),
        _activation(layer, clamps_too=True),
    )


def _bf16(layer: Layer, plan: LayerPlan, known: KnownWeights) -> nn.Module:
    return Bf16(layer.weight, layer.bias, _compute(layer.spec), _activation(layer, clamps_too=True))


def _sparse_float(layer: Layer, plan: LayerPlan, known: KnownWeights) -> nn.Module:
    activation = layer.spec.epilogue.activation
    clamp = activation.bounds if activation.is_clamp else (-inf, inf)
    weight = SparseFloatWeight.of(layer.weight, layer.spec.groups)
    return SparseFloat(
        weight, layer.bias, _compute(layer.spec), _activation(layer, clamps_too=False), clamp
    )


def _float(layer: Layer, plan: LayerPlan, known: KnownWeights) -> nn.Module:
    return layer


LOWERINGS: dict[tuple[str, str], Lowering] = {
    ("linear", "int8"): _static_linear,
    ("conv2d", "int8"): _static_conv2d,
    ("conv1d", "int8"): _static_conv1d,
    ("linear", "int8-dynamic"): _dynamic_linear,
    ("conv2d", "int8-dynamic"): _dynamic_conv2d,
    ("conv1d", "int8-dynamic"): _dynamic_conv1d,
    ("linear", "int8-weight-only"): _weight_only,
    ("conv2d", "int8-weight-only"): _weight_only,
    ("conv1d", "int8-weight-only"): _weight_only,
    ("linear", "bf16"): _bf16,
    ("conv2d", "bf16"): _bf16,
    ("conv1d", "bf16"): _bf16,
    ("linear", "fp32-sparse"): _sparse_float,
    ("conv2d", "fp32-sparse"): _sparse_float,
    ("conv1d", "fp32-sparse"): _sparse_float,
    ("linear", "fp32"): _float,
    ("conv2d", "fp32"): _float,
    ("conv1d", "fp32"): _float,
}


def lower_layer(layer: Layer, plan: LayerPlan, known: KnownWeights | None = None) -> nn.Module:
    """Return the module that serves layer as planned; known: weights quantized before."""
    made = LOWERINGS[layer.spec.kind, plan.precision](layer, plan, known or KnownWeights())
    dtype = layer.weight.dtype
    in_float32 = plan.precision in ("int8", "int8-dynamic") and plan.output is None
    return InDtype(made, dtype) if in_float32 and dtype in HALVES else made
