"""Which precision each layer gets before anything is timed: rules on kind, shape and request."""

from __future__ import annotations

from fnmatch import fnmatch
from typing import Any

from torch import Tensor

from fastinfer.graph.layer import Layer
from fastinfer.types.device import takes_int8, why_no_int8
from fastinfer.types.finite import all_finite

STATIC = "int8"
DYNAMIC = "int8-dynamic"
WEIGHT_ONLY = "int8-weight-only"
#: A float layer whose zeros are left out; timing chooses it, nobody asks for it.
SPARSE_FLOAT = "fp32-sparse"


def requested_precision(config: Any) -> str:
    """Return the precision a config asks of every layer, "int8" under "auto"."""
    mode = getattr(config, "mode", None)
    precision = getattr(config, "precision", "auto")
    if precision in ("auto", "int8"):
        return {"dynamic": DYNAMIC, "weight_only": WEIGHT_ONLY}.get(str(mode), STATIC)
    return str(precision)


def is_ignored(name: str, config: Any) -> bool:
    """Return True when a layer's name matches one of the config's ignore patterns."""
    return any(fnmatch(name, pattern) for pattern in getattr(config, "ignore", ()))


def unsupported(layer: Layer, shape: tuple[int, ...] | None) -> str | None:
    """Return why no int8 op serves the layer, or None. shape: its input's."""
    spec, weight = layer.spec, layer.weight
    if weight.device.type == "cpu" and not takes_int8(weight.dtype, weight.device):
        return f"weight is {str(weight.dtype).removeprefix('torch.')}, int8 layers need float32"
    reason = why_no_int8(weight.device)
    if reason is not None:
        return reason
    if not takes_int8(weight.dtype, weight.device):
        name = str(weight.dtype).removeprefix("torch.")
        return f"weight is {name}, int8 layers need float32, float16 or bfloat16"
    for name, value in (("weight", layer.weight), ("bias", layer.bias)):
        if isinstance(value, Tensor) and not all_finite(value):
            return f"{name} holds NaN or infinity"
    if weight.numel() == 0:
        return "weight has no elements"
    if shape is not None and spec.kind != "linear":
        wanted = 4 if spec.kind == "conv2d" else 3
        if len(shape) != wanted:
            return f"input has {len(shape)} dimensions, int8 convolutions need a batch dimension"
    if shape is not None and len(shape) < 2 and spec.kind == "linear":
        return "input has one dimension"
    return None


def choose_precision(
    name: str, layer: Layer, shape: tuple[int, ...] | None, config: Any
) -> tuple[str, str]:
    """Return (precision, reason) of one layer. shape: of its input, None when it never ran."""
    wanted = requested_precision(config)
    if wanted == "fp32":
        return "fp32", "precision fp32 was asked for"
    if is_ignored(name, config):
        return "fp32", "named in ignore"
    reason = unsupported(layer, shape)
    if reason is not None:
        return "fp32", reason
    if wanted != STATIC:
        return wanted, ""
    if shape is None:
        return DYNAMIC, "not reached by the calibration data"
    if layer.spec.kind == "linear" and len(shape) > 2 and getattr(config, "mode", None) != "static":
        return DYNAMIC, "one scale per token"
    return STATIC, ""
