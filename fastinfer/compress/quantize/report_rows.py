"""Rows of the report: a layer's geometry in words, and its bytes."""

from __future__ import annotations

from dataclasses import replace

from torch import fx, nn
from torch.nn.parameter import is_lazy

from fastinfer.compress.quantize.precision import SPARSE_FLOAT
from fastinfer.graph.layer import Layer, LayerSpec
from fastinfer.report import LayerReport, Report
from fastinfer.types.sparse_float import sparse_float_bytes


def geometry(spec: LayerSpec) -> str:
    """Return a layer's sizes as a short text, e.g. "32->96 3x3 /2 dw relu"."""
    text = f"{spec.in_features}->{spec.out_features}"
    if spec.kind != "linear":
        kh, kw = spec.kernel_size
        text += f" k{kw}" if spec.kind == "conv1d" else f" {kh}x{kw}"
        if spec.stride != (1, 1):
            text += f" /{max(spec.stride)}"
        if spec.groups > 1:
            text += " dw" if spec.is_depthwise else f" g{spec.groups}"
    activation = spec.epilogue.activation
    if activation.name == "clamp":
        lo, hi = activation.params
        text += {(0.0, 6.0): " relu6", (0.0, float("inf")): " relu"}.get((lo, hi), " clamp")
    elif not activation.is_identity:
        text += f" {activation.name}"
    return text + " +res" if spec.epilogue.has_residual else text


def layer_row(
    name: str,
    layer: Layer | None,
    precision: str,
    reason: str = "",
    *,
    float_ms: float | None = None,
    fast_ms: float | None = None,
    sqnr_db: float | None = None,
    module: nn.Module | None = None,
) -> LayerReport:
    """Return the row of a layer. module: what to describe when it could not be made a Layer."""
    if layer is None:
        assert module is not None
        parameters = [p for p in module.parameters(recurse=False) if not is_lazy(p)]
        size = sum(p.numel() * p.element_size() for p in parameters)
        kind, text, weight_bytes = type(module).__name__.lower(), module.extra_repr()[:60], size
    else:
        size = layer.weight.nbytes
        kind, text = layer.spec.kind, geometry(layer.spec)
        weight_bytes = _weight_bytes(layer, precision)
    return LayerReport(
        name,
        kind,
        text,
        precision,
        reason,
        float_ms=float_ms,
        fast_ms=fast_ms,
        sqnr_db=sqnr_db,
        weight_bytes=weight_bytes,
        float_weight_bytes=size,
    )


def _weight_bytes(layer: Layer, precision: str) -> int:
    if precision == SPARSE_FLOAT:
        return sparse_float_bytes(layer.weight)
    width = {"fp32": layer.weight.element_size(), "bf16": 2}.get(precision, 1)
    return layer.weight.numel() * width


def count_bytes(report: Report, graph_module: fx.GraphModule) -> None:
    """Count the rows' bytes by the layers of a graph, instead of those that were planned on."""
    rows = []
    for row in report.layers:
        layer = graph_module.get_submodule(row.name)
        assert isinstance(layer, Layer)
        counted = layer_row(row.name, layer, row.precision)
        rows.append(
            replace(
                row,
                weight_bytes=counted.weight_bytes,
                float_weight_bytes=counted.float_weight_bytes,
            )
        )
    report.layers[:] = rows
