"""What the demo found: values, the table, the JSON, and the bars it is held to."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from fastinfer.demo.accuracy import Labelled, ModelAccuracy
from fastinfer.measure import Timing
from fastinfer.report import Report
from fastinfer.report_text import format_table, mebibytes

EAGER, CHANNELS_LAST, BF16, FAST = "eager", "eager channels_last", "torch bf16", "fastinfer int8"


@dataclass(frozen=True)
class Variant:
    """One way to run the model: times by batch size, accuracy where it was measured."""

    name: str
    bytes: int
    timings: dict[int, Timing]
    accuracy: ModelAccuracy | None = None


@dataclass(frozen=True)
class DemoResult:
    """Everything the demo measured."""

    variants: tuple[Variant, ...]
    convert_s: float
    calibration_crops: int
    calibration_photos: int
    threads: int
    report: Report
    machine: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Variant:
        """Return a variant by name."""
        for variant in self.variants:
            if variant.name == name:
                return variant
        raise KeyError(name)

    def ratio(self, name: str, batch: int) -> float:
        """Return how many times faster than eager a variant is at a batch size."""
        return self[EAGER].timings[batch].median_ms / self[name].timings[batch].median_ms

    @property
    def batches(self) -> tuple[int, ...]:
        """Batch sizes that were timed."""
        return tuple(self.variants[0].timings)

    @property
    def byte_share(self) -> float:
        """Bytes of the int8 state_dict divided by those of the float one."""
        return self[FAST].bytes / self[EAGER].bytes

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON-able data."""
        variants = [
            {
                **asdict(variant),
                "ratio": {batch: self.ratio(variant.name, batch) for batch in variant.timings},
                "samples_per_s": {b: 1e3 * b / t.median_ms for b, t in variant.timings.items()},
            }
            for variant in self.variants
        ]
        return {
            "machine": self.machine,
            "threads": self.threads,
            "convert_s": self.convert_s,
            "calibration_crops": self.calibration_crops,
            "calibration_photos": self.calibration_photos,
            "byte_share": self.byte_share,
            "variants": variants,
            "notes": list(self.notes),
            "report": self.report.to_dict(),
        }


def render_table(result: DemoResult) -> str:
    """Return the demo's one table, a column per variant."""
    variants = result.variants
    rows: list[list[str]] = []
    for batch in result.batches:
        timings = [variant.timings[batch] for variant in variants]
        ratios = [result.ratio(variant.name, batch) for variant in variants]
        label = f"batch {batch}"
        rows += [
            [f"{label}: median ms", *(f"{t.median_ms:.2f}" for t in timings)],
            ["  p20 - p80 ms", *(f"{t.p20_ms:.2f} - {t.p80_ms:.2f}" for t in timings)],
            ["  images per second", *(f"{1e3 * batch / t.median_ms:.1f}" for t in timings)],
            ["  times faster than eager", *(f"{ratio:.2f}x" for ratio in ratios)],
        ]
    rows += _accuracy_rows(result)
    rows.append(["state_dict bytes", *(mebibytes(v.bytes) for v in variants)])
    seconds = [f"{result.convert_s:.1f}" if v.name == FAST else "-" for v in variants]
    rows.append(["seconds to convert", *seconds])
    title = f"MobileNetV2, ImageNet weights, real photos, {result.threads} threads"
    return format_table(["", *(v.name for v in variants)], rows, title=title, max_width=60)


def _accuracy_rows(result: DemoResult) -> list[list[str]]:
    known = [v.accuracy for v in result.variants if v.accuracy is not None]
    if not known:
        return []
    found = [variant.accuracy for variant in result.variants]
    sample = known[0]

    def row(label: str, text: Any) -> list[str]:
        return [label, *("-" if a is None else text(a) for a in found)]

    def score(s: Labelled) -> str:
        return f"{s.top1}/{s.photos}, {s.top5}/{s.photos}"

    crops, sure = sample.agreement.crops, sample.agreement.sure_crops
    return [
        row(f"top-1, top-5: {sample.held_out.photos} unseen photos", lambda a: score(a.held_out)),
        row(f"top-1, top-5: all {sample.all_photos.photos} photos", lambda a: score(a.all_photos)),
        row(
            f"top-1 as float: {crops} unseen crops, %",
            lambda a: f"{100 * a.agreement.top1:.1f}",
        ),
        row(
            f"top-1 as float: the {sure} with p > .3, %",
            lambda a: f"{100 * a.agreement.sure_top1:.1f}",
        ),
        row(f"SQNR of logits: {crops} crops, dB", lambda a: f"{a.agreement.sqnr_db:.1f}"),
    ]


def check_bars(result: DemoResult) -> list[tuple[bool, str]]:
    """Return (met, sentence) for every bar the demo is held to."""
    fast, eager = result[FAST].accuracy, result[EAGER].accuracy
    if fast is None or eager is None:
        raise ValueError("check_bars: expected accuracy of eager and fastinfer, got none")
    share = fast.agreement
    photos = eager.all_photos.top1 - fast.all_photos.top1
    bars = [(result.ratio(FAST, 1), 4.0, "times eager at batch 1")]
    if 16 in result.batches:
        bars.append((result.ratio(FAST, 16), 6.0, "times eager at batch 16"))
    bars += [
        (100 * share.top1, 93.0, f"% top-1 agreement on {share.crops} crops"),
        (100 * share.sure_top1, 96.0, f"% where float p > .3 ({share.sure_crops} crops)"),
        (share.sqnr_db, 17.0, "dB SQNR of the logits"),
    ]
    lines = [(got >= bar, f"{got:.2f} {what}, bar >= {bar:g}") for got, bar, what in bars]
    lines.append((photos <= 1, f"{photos} labelled photos lost against float, bar <= 1"))
    lines.append((result.convert_s <= 20, f"{result.convert_s:.1f} s to convert, bar <= 20"))
    percent = 100 * result.byte_share
    lines.append((percent <= 30, f"{percent:.1f} % of the float bytes, bar <= 30"))
    return lines
