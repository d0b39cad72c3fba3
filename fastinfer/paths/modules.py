"""The module path: the user's own code, on packed layers where it has no graph."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from torch import nn

from fastinfer.lower import lower_modules
from fastinfer.nn.converted_module import ModulePath
from fastinfer.report import LayerReport
from fastinfer.request import Request
from fastinfer.tune import choose_modules


def convert_modules(
    request: Request,
    parts: Mapping[str, nn.Module | None] | None = None,
    rows: Sequence[LayerReport] = (),
) -> ModulePath:
    """Return a copy of the model with packed layers.

    Args:
        request: ranges of its layers are found at each call, so calibration is not used.
        parts: modules in the place of submodules by name; None leaves a submodule as it is.
        rows: of the report, for the layers of the parts.

    """
    model, config, report = request.model, request.config, request.report
    if not parts and request.calibration is not None:
        report.note("calibration was not used: the module path finds ranges at each call")
    with report.timed("modules"):
        swapped = choose_modules(
            model, config, report, args=request.args, kwargs=request.kwargs, parts=parts
        )
    taken = [row for row in report.layers if not row.precision.startswith("fp32")]
    if taken and request.evaluate is not None and request.max_drop is not None:
        drop = request.accuracy(model) - request.accuracy(ModulePath(swapped, report))
        if not drop <= request.max_drop:  # NaN is no accuracy
            reason = f"evaluate drops by {drop:.4g} > max_drop {request.max_drop:.4g}"
            keep = {row.name: f"{reason} with such layers in int8" for row in taken}
            swapped = lower_modules(model, config, report, keep_float=keep, parts=parts)
    report.layers[:] = _in_order([*rows, *report.layers], model)
    return ModulePath(swapped, report)


def _in_order(rows: Iterable[LayerReport], model: nn.Module) -> list[LayerReport]:
    """Return the rows in the order of the model's modules.

    A layer that a graph calls twice has the rows "conv" and "conv_1".
    """
    places = {name: index for index, (name, _) in enumerate(model.named_modules())}

    def place(row: LayerReport) -> int:
        name = row.name if row.name in places else re.sub(r"_\d+$", "", row.name)
        while name not in places:
            name = name.rpartition(".")[0]
        return places[name]

    return sorted(rows, key=place)
