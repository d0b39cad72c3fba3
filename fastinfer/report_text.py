"""Reports for people: aligned plain text, the same in a terminal, a log and a notebook."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from fastinfer.report import LayerReport, PartReport, RegionReport, Report

#: Submodules without a graph that are named.
MAX_REASONS = 12


def format_table(
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    title: str = "",
    max_width: int = 44,
) -> str:
    """Return an aligned table; columns of numbers go right, cells longer than max_width are cut."""
    cells = [[_cut(str(cell), max_width) for cell in row] for row in rows]
    widths = [
        max(len(head), *(len(row[i]) for row in cells)) if cells else len(head)
        for i, head in enumerate(headers)
    ]
    right = [_all_numbers([row[i] for row in cells]) for i in range(len(headers))]

    def line(row: Sequence[str]) -> str:
        parts = [
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        ]
        return "  ".join(parts).rstrip()

    lines = [line(headers), "  ".join("-" * width for width in widths), *map(line, cells)]
    return "\n".join(([title] if title else []) + lines)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _all_numbers(column: Sequence[str]) -> bool:
    seen = [cell for cell in column if cell not in ("", "-")]
    return bool(seen) and all(cell[0] in "0123456789+-." or cell == "inf" for cell in seen)


def mebibytes(count: int | None) -> str:
    """Return a byte count as text, in the unit that keeps it readable."""
    if count is None:
        return "-"
    if count >= 1 << 20:
        return f"{count / (1 << 20):.2f} MiB"
    return f"{count / 1024:.1f} KiB"


def number(value: float | None, digits: int = 3, unit: str = "") -> str:
    """Return a number as text, "-" for None."""
    return "-" if value is None else f"{value:.{digits}f}{unit}"


def render_report(report: Report) -> str:
    """Return the whole report: summary, parts, regions, layers, what stayed float, notes."""
    parts = [_summary(report)]
    if report.uncaptured:
        parts.append(_uncaptured(report.uncaptured))
    if report.parts:
        parts.append(_part_table(report.parts, report.regions))
    if report.regions:
        parts.append(_regions(report.regions))
    if report.layers:
        parts.append(_layer_table(report.layers))
    if report.fallbacks:
        parts.append(_fallbacks(report.fallbacks))
    if report.notes:
        parts.append("\n".join(["Notes:"] + [f"  - {note}" for note in report.notes]))
    return "\n\n".join(parts)


def _summary(report: Report) -> str:
    kinds = Counter(row.precision for row in report.layers)
    counted = ", ".join(f"{count}x {name}" for name, count in kinds.most_common()) or "none"
    lines = [f"fastinfer report ({report.path or 'no path recorded'})", f"  layers       {counted}"]
    if report.between_total:
        lines.append(
            f"  between      {report.between_int8} of {report.between_total} operations between "
            "layers in int8"
        )
    if report.speedup is not None:
        times = f"{number(report.float_ms)} ms -> {number(report.fast_ms)} ms"
        lines.append(f"  on example   {times} ({report.speedup:.2f}x)")
    if report.sqnr_db is not None:
        lines.append(f"  output SQNR  {report.sqnr_db:.1f} dB")
    before = sum(row.float_weight_bytes for row in report.layers)
    after = sum(row.weight_bytes for row in report.layers)
    if before:
        share = 100 * after / before
        lines.append(f"  weights      {mebibytes(before)} -> {mebibytes(after)} ({share:.0f} %)")
    if report.convert_s is not None:
        lines.append(f"  converted in {report.convert_s:.1f} s")
    if report.stage_s:
        stages = ", ".join(f"{name} {seconds:.1f}" for name, seconds in report.stage_s.items())
        lines.append(f"  stages       {stages} s")
    if report.regions:
        steps = " + ".join(str(region.steps) for region in report.regions)
        lines.append(f"  engine       {len(report.regions)} regions: {steps} steps")
    if report.passes:
        rewrites = ", ".join(f"{name} {count}" for name, count in report.passes.items() if count)
        lines.append(f"  rewrites     {rewrites or 'none'}")
    if report.environment:
        facts = ", ".join(f"{key} {value}" for key, value in report.environment.items())
        lines.append(f"  environment  {facts}")
    return "\n".join(lines)


def _uncaptured(reasons: Mapping[str, str]) -> str:
    lines = [f"  {name or 'the whole model'}: {reason}" for name, reason in reasons.items()]
    if len(lines) > MAX_REASONS:
        lines[MAX_REASONS:] = [f"  and {len(lines) - MAX_REASONS} more"]
    return "\n".join(["Has no graph:", *lines])


def _part_table(parts: Sequence[PartReport], regions: Sequence[RegionReport]) -> str:
    headers = [
        "submodule", "class", "calls", "int8", "regions", "steps", "float ms", "fast ms", "ratio",
        "SQNR dB",
    ]  # fmt: skip
    rows = []
    for part in parts:
        steps = [region.steps for region in regions if region.part == part.name]
        rows.append(
            [
                part.name,
                part.kind,
                str(part.calls),
                f"{part.int8_layers}/{part.layers}",
                str(len(steps)),
                str(sum(steps)),
                number(part.float_ms),
                number(part.fast_ms),
                _ratio(part.float_ms, part.fast_ms),
                number(part.sqnr_db, 1),
            ]
        )
    lines = [format_table(headers, rows)]
    lines += [
        f"  {part.name} was not kept as a graph: {part.reason}"
        for part in parts
        if part.path != "graph"
    ]
    return "\n".join(lines)


def _regions(regions: Sequence[RegionReport]) -> str:
    lines = [f"Regions ({len(regions)}):"]
    for region in regions:
        where = f"{region.part}: " if region.part else ""
        lines.append(
            f"  {where}{region.steps} steps from {_counted(region.before)} "
            f"to {_counted(region.after)}"
        )
    return "\n".join(lines)


def _counted(names: Mapping[str, int]) -> str:
    texts = [name if count == 1 else f"{count}x {name}" for name, count in names.items()]
    return ", ".join(texts) or "nothing"


def _ratio(float_ms: float | None, fast_ms: float | None) -> str:
    return number(float_ms / fast_ms if float_ms and fast_ms else None, 2, "x")


def _layer_table(layers: Sequence[LayerReport]) -> str:
    headers = ["layer", "kind", "geometry", "precision", "float ms", "fast ms", "ratio", "SQNR dB"]
    rows = [
        [
            row.name,
            row.kind,
            row.geometry,
            row.precision,
            number(row.float_ms),
            number(row.fast_ms),
            _ratio(row.float_ms, row.fast_ms),
            number(row.sqnr_db, 1),
        ]
        for row in layers
    ]
    return format_table(headers, rows)


def _fallbacks(layers: Sequence[LayerReport]) -> str:
    lines = [f"Kept in float ({len(layers)}):"]
    lines += [
        f"  {row.name} ({row.precision}): {row.reason or 'no reason given'}" for row in layers
    ]
    return "\n".join(lines)
