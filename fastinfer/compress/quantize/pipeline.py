"""The stage `convert` calls: calibrate, decide, correct biases, report."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fastinfer.compress.quantize.batches import Flatten
from fastinfer.compress.quantize.bias_correction import correct_biases
from fastinfer.compress.quantize.calibrate import Calibrator
from fastinfer.compress.quantize.decide import decide
from fastinfer.compress.quantize.precision import STATIC, requested_precision
from fastinfer.program import Program
from fastinfer.report import LayerReport


def geometry(spec: Any) -> str:
    """Return a layer's sizes as a short text, e.g. "32->96 3x3 /2 g32"."""
    text = f"{spec.in_features}->{spec.out_features}"
    if spec.kind != "linear":
        kh, kw = spec.kernel_size
        text += f" k{kw}" if spec.kind == "conv1d" else f" {kh}x{kw}"
        if spec.stride != (1, 1):
            text += f" /{max(spec.stride)}"
        if spec.groups > 1:
            text += " dw" if spec.is_depthwise else f" g{spec.groups}"
    if not spec.epilogue.activation.is_identity:
        name = spec.epilogue.activation.name
        text += {"clamp": " relu" if spec.epilogue.activation.params[0] == 0 else " clamp"}.get(
            name, f" {name}"
        )
    if spec.epilogue.has_residual:
        text += " +res"
    return text


def quantize(
    program: Program,
    calibration: Calibrator | Iterable[Any] | None,
    config: Any,
    *,
    example: tuple[tuple[Any, ...], dict[str, Any]] | None = None,
    flatten: Flatten | None = None,
) -> Program:
    """Return the program with a LayerPlan for every Layer and a report row for each.

    calibration: a Calibrator that ran, any iterable of batches, or None (the example serves).

    Raises:
        ValueError: empty calibration, or NaN in a batch (named).
        TypeError: calibration is not iterable, or a batch is of an unknown type.
    """
    if isinstance(calibration, Calibrator):
        calibrator = calibration
    else:
        calibrator = Calibrator(program, config, example=example, flatten=flatten)
        if requested_precision(config) != "fp32":
            calibrator.run(calibration)
    program = decide(program, calibrator, config)
    sqnr: dict[str, float] = {}
    if any(entry.precision == STATIC for entry in program.plan.values()):
        if calibrator.from_example:
            program.report.note(
                "scales from the example only: pass calibration= for scales that hold on other data"
            )
        if getattr(config, "bias_correction", True):
            program, result = correct_biases(program, calibrator.samples)
            sqnr = result.layer_sqnr_db
    program.report.layers[:] = layer_rows(program, calibrator, sqnr)
    return program


def layer_rows(
    program: Program, calibrator: Calibrator, sqnr: dict[str, float]
) -> list[LayerReport]:
    """Return one report row per layer, in graph order."""
    rows = []
    for node, layer in calibrator.layers.items():
        name = str(node.target)
        entry = program.plan[name]
        float_bytes = layer.weight.numel() * layer.weight.element_size()
        per_weight = {"fp32": layer.weight.element_size(), "bf16": 2}.get(entry.precision, 1)
        rows.append(
            LayerReport(
                name,
                layer.spec.kind,
                geometry(layer.spec),
                entry.precision,
                entry.reason,
                sqnr_db=sqnr.get(name),
                weight_bytes=layer.weight.numel() * per_weight,
                float_weight_bytes=float_bytes,
            )
        )
    return rows
