"""Profiles for people: one table for each region."""

from __future__ import annotations

from collections.abc import Sequence

from fastinfer.report_profile import Profile, ProfiledRegion, ProfiledStep
from fastinfer.report_text import format_table, mebibytes, number


def render_profile(profile: Profile) -> str:
    """Return the summary, then every region with its steps."""
    parts = [_summary(profile)]
    for index, region in enumerate(profile.regions):
        parts.append(_region(profile, region, index + 1))
    return "\n\n".join(parts)


def _summary(profile: Profile) -> str:
    inside = sum(region.calls * region.us for region in profile.regions)
    lines = [
        f"fastinfer profile: {profile.wall_us / 1e3:.3f} ms a call, median of {profile.runs}, "
        f"{profile.threads} threads, {profile.isa}",
        f"  regions  {inside / 1e3:.3f} ms ({_percent(inside, profile)})",
        f"  outside  {profile.outside_us / 1e3:.3f} ms ({_percent(profile.outside_us, profile)})",
    ]
    if profile.peak_gops is not None:
        lines.append(f"  peak     {profile.peak_gops:.0f} GOPS int8 in registers, measured")
    return "\n".join(lines)


def _percent(us: float, profile: Profile) -> str:
    return f"{100 * us / profile.wall_us:.1f} %"


def _region(profile: Profile, region: ProfiledRegion, index: int) -> str:
    facts = [f"{region.us:.1f} us"]
    if region.calls != 1:
        facts.append(f"{region.calls:g} calls")
    if region.slices != 1:
        facts.append(f"{region.slices} slices of the batch")
    each = region.engine_us / len(region.steps)
    facts.append(f"{len(region.steps)} steps, {each:.2f} us each beside their kernels")
    facts.append(
        f"arena {mebibytes(region.arena_bytes)}, at least {mebibytes(region.arena_lower_bound)}"
    )
    where = f" in {region.part}" if region.part else ""
    headers = ["step", "kind", "shapes", "us", "share %", "peak %", "KiB", "GB/s"]
    rows = [_row(profile, region, step) for step in region.steps]
    title = f"Region {index}{where}: {'; '.join(facts)}"
    return format_table(headers, rows, title=title)


def _row(profile: Profile, region: ProfiledRegion, step: ProfiledStep) -> list[str]:
    peak = profile.peak_share(step)
    return [
        step.name,
        step.kind.removeprefix("int8_"),
        f"{' + '.join(map(_shape, step.inputs))} -> {_shape(step.output)}",
        f"{step.us:.1f}",
        f"{100 * profile.share(step, region):.1f}",
        number(None if peak is None else 100 * peak, 0),
        f"{(step.bytes_read + step.bytes_written) / 1024:.1f}",
        f"{step.gb_per_s:.1f}",
    ]


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "1"
