"""The stage `convert` calls: calibrate and decide, with a report row for every layer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fastinfer.compress.quantize.batches import Flatten
from fastinfer.compress.quantize.calibrate import Calibrator
from fastinfer.compress.quantize.decide import decide
from fastinfer.compress.quantize.precision import STATIC, requested_precision
from fastinfer.compress.quantize.report_rows import layer_row
from fastinfer.program import Program


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
    is_static = any(entry.precision == STATIC for entry in program.plan.values())
    if is_static and calibrator.from_example:
        program.report.note(
            "scales from the example only: pass calibration= for scales that hold on other data"
        )
    refresh_rows(program, calibrator)
    return program


def refresh_rows(
    program: Program, calibrator: Calibrator, sqnr_db: dict[str, float] | None = None
) -> None:
    """Write one report row per layer, in graph order, keeping times already measured."""
    old = {row.name: row for row in program.report.layers}
    rows = []
    for node, layer in calibrator.layers.items():
        name = str(node.target)
        entry, before = program.plan[name], old.get(name)
        rows.append(
            layer_row(
                name,
                layer,
                entry.precision,
                entry.reason,
                float_ms=before.float_ms if before else None,
                fast_ms=before.fast_ms if before else None,
                sqnr_db=(sqnr_db or {}).get(name),
            )
        )
    program.report.layers[:] = rows
    program.report.between_total = len(calibrator.betweens)
    program.report.between_int8 = len(program.between)
