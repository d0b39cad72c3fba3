"""fastinfer's own layers as JSON: settings here, weights among the tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from fastinfer.artifact.errors import ArtifactError
from fastinfer.artifact.values import DTYPES, read_data, read_value, write_data, write_value
from fastinfer.config import UnsupportedError
from fastinfer.graph.layer import Layer, LayerSpec, activate, apply_activation
from fastinfer.lower.lowerings import ThenActivation
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
    PackedModule,
    SparseFloat,
    WeightOnly,
)
from fastinfer.types import Activation, Epilogue, TensorQuant
from fastinfer.types.folded import FoldedLayer
from fastinfer.types.sparse_float import SparseFloatWeight

Settings = dict[str, Any]
Tensors = Mapping[str, Tensor]

_STATIC: tuple[type[nn.Module], ...] = (Int8Linear, Int8Conv2d, Int8Conv1d)
_DYNAMIC: tuple[type[nn.Module], ...] = (Int8LinearDynamic, Int8Conv2dDynamic, Int8Conv1dDynamic)
_LINEAR = (Int8Linear, Int8LinearDynamic)
_GEOMETRY = ("kernel_size", "stride", "padding", "dilation")
_INTEGERS = ("x_zero_point", "out_zero_point", "qmin", "qmax")
_BOUNDS = ("clamp_min", "clamp_max")
_PARTS = ("bias", "multiplier", "residual_multiplier", "table", "float_bias")
LAYERS: dict[str, type[nn.Module]] = {
    kind.__name__: kind
    for kind in (
        *_STATIC,
        *_DYNAMIC,
        WeightOnly,
        Bf16,
        SparseFloat,
        Layer,
        ThenActivation,
        InDtype,
    )
}


def write_layer(module: nn.Module) -> tuple[Settings, dict[str, Tensor]]:
    """Return a layer's settings and its tensors by name; those of the module in it are its own.

    Raises:
        UnsupportedError: its computation is none that can be stored.
    """
    settings: Settings = {}
    tensors = {k: v for k, v in module.state_dict(keep_vars=True).items() if "." not in k}
    if isinstance(module, PackedModule):
        folded = module.folded()
        settings |= {"op": folded.op, "groups": folded.groups, "float_output": folded.float_output}
        if not isinstance(module, _LINEAR):
            settings["geometry"] = {name: list(getattr(module, name)) for name in _GEOMETRY}
        if isinstance(module, Int8Conv2dDynamic):
            settings["keeps_layout"] = module.keeps_layout
    if isinstance(module, InDtype):
        settings["dtype"] = str(module.dtype).removeprefix("torch.")
    if isinstance(module, Layer):
        settings["spec"] = write_data(asdict(module.spec))
    if isinstance(module, (*_DYNAMIC, WeightOnly, Bf16, SparseFloat, ThenActivation)):
        settings["activation"] = _write_activation(module._activation)
    if isinstance(module, SparseFloat):
        settings |= {"shape": list(module.shape), "groups": module.groups}
        settings["clamp"] = write_data(module.clamp)
    if isinstance(module, (WeightOnly, Bf16, SparseFloat)):
        settings["compute"] = _write_compute(module._compute)
    quant = getattr(module, "output_quant", None)
    if quant is not None:
        settings["output_quant"] = asdict(quant)
    return settings, tensors


def read_layer(
    kind: str, settings: Settings, tensors: Tensors, children: Mapping[str, nn.Module]
) -> nn.Module:
    """Return the layer of what `write_layer` made, packed for the instruction set in force.

    Raises:
        ArtifactError, and what the layer's constructor raises on settings that do not fit.
    """
    module = _make(LAYERS[kind], settings, tensors, children)
    if "keeps_layout" in settings:
        module.keeps_layout = bool(settings["keeps_layout"])  # type: ignore[assignment]
    if kind != "Layer":  # `lower` leaves it where it marks the others, so None says something
        quant = settings.get("output_quant")
        module.output_quant = None if quant is None else _read_quant(quant)  # type: ignore[assignment]
    return module.eval()


def _make(
    kind: type[nn.Module],
    settings: Settings,
    tensors: Tensors,
    children: Mapping[str, nn.Module],
) -> nn.Module:
    if kind is ThenActivation:
        return ThenActivation(
            children["module"], _some_activation(settings["activation"], activate)
        )
    if kind is InDtype:
        return InDtype(children["module"], DTYPES[settings["dtype"]])
    if kind is Layer:
        return Layer(_read_spec(settings["spec"]), tensors["weight"], tensors.get("bias"))
    if kind is WeightOnly:
        return WeightOnly(
            tensors["weight_int8"],
            tensors["scale"],
            tensors.get("bias"),
            _read_compute(settings["compute"]),
            _read_activation(settings["activation"]),
        )
    if kind is Bf16:
        compute, activation = settings["compute"], settings["activation"]
        return Bf16(
            tensors["weight"],
            tensors.get("bias"),
            _read_compute(compute),
            _read_activation(activation),
        )
    if kind is SparseFloat:
        shape, groups = tuple(settings["shape"]), settings["groups"]
        parts = (tensors[name] for name in ("values", "places", "starts"))
        low, high = (read_data(bound) for bound in settings["clamp"])
        return SparseFloat(
            SparseFloatWeight(*parts, shape, groups),
            tensors.get("bias"),
            _read_compute(settings["compute"]),
            _read_activation(settings["activation"]),
            (low, high),
        )
    arguments: list[Any] = [_read_folded(settings, tensors)]
    if kind not in _LINEAR:
        geometry = settings["geometry"]
        arguments.append(ConvGeometry(**{name: _pair(geometry[name]) for name in _GEOMETRY}))
    if kind in _DYNAMIC:
        arguments.append(_read_activation(settings["activation"], activate))
    return kind(*arguments)


def _read_folded(settings: Settings, tensors: Tensors) -> FoldedLayer:
    integers = dict(zip(_INTEGERS, tensors["integers"].tolist(), strict=True))
    bounds = dict(zip(_BOUNDS, tensors["bounds"].tolist(), strict=True))
    parts = {name: tensors[name] for name in _PARTS if name in tensors}
    return FoldedLayer(
        op=settings["op"],
        weight=tensors["weight"],
        groups=settings["groups"],
        float_output=bool(settings["float_output"]),
        **parts,
        **integers,
        **bounds,
    )


def _pair(values: Any) -> tuple[int, int]:
    height, width = values
    return int(height), int(width)


def _read_quant(data: Settings) -> TensorQuant:
    return TensorQuant(tuple(data["scale"]), data["zero_point"], tuple(data["shift"]))


def _read_spec(data: Settings) -> LayerSpec:
    values = read_data(data)
    epilogue = values.pop("epilogue")
    pairs = {name: _pair(values.pop(name)) for name in _GEOMETRY}
    activation = Activation(epilogue["activation"]["name"], tuple(epilogue["activation"]["params"]))
    return LayerSpec(
        **values, **pairs, epilogue=Epilogue(activation, bool(epilogue["has_residual"]))
    )


def _write_activation(function: Callable[[Tensor], Tensor] | None) -> Settings | None:
    if function is None:
        return None
    if isinstance(function, partial) and function.func in (activate, apply_activation):
        (activation,) = function.args
        return {"name": activation.name, "params": write_data(activation.params)}
    raise UnsupportedError(f"save: expected an activation of fastinfer's, got {function!r}")


def _read_activation(
    data: Settings | None, apply: Callable[..., Tensor] = apply_activation
) -> Callable[[Tensor], Tensor] | None:
    return None if data is None else _some_activation(data, apply)


def _some_activation(data: Settings, apply: Callable[..., Tensor]) -> Callable[[Tensor], Tensor]:
    return partial(apply, Activation(data["name"], tuple(read_data(p) for p in data["params"])))


def _write_compute(compute: Any) -> Settings | None:
    """Return the computation of a layer that keeps it: None is a linear layer's."""
    if compute is F.linear:
        return None
    if isinstance(compute, BoundConv):
        geometry = {k: write_value(v, k) for k, v in compute.geometry.items()}
        return {"dims": compute.dims, "geometry": geometry}
    raise UnsupportedError(f"save: expected a linear layer or a convolution, got {compute!r}")


def _read_compute(data: Settings | None) -> Any:
    if data is None:
        return F.linear
    geometry = {k: read_value(v) for k, v in data["geometry"].items()}
    if set(geometry) != {"stride", "padding", "dilation", "groups"}:
        raise ArtifactError(f"load: expected the geometry of a convolution, got {geometry}")
    return BoundConv(data["dims"], **geometry)
