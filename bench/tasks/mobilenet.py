"""MobileNetV2 with its ImageNet weights: agreement with float over crops of photos.

Only 20 labelled photos are at hand, a smoke test, so answers are compared with the float network's.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path

from torch import Tensor, nn

from fastinfer.demo.photos import Photo, random_crops, split_photos
from fastinfer.demo.weights import mobilenet_v2
from fastinfer.measure import sqnr_db, top1_agreement
from tasks.cache import cached_tensors
from tasks.task import Figure, Split, Task, answers
from tasks.wheels import wheel_folder

BATCH = 16
#: Crops a photo. Distillation trains on many: with few it learns the photos, not the network.
CROPS = {"calibration": 12, "distillation": 60, "choosing": 20, "evaluation": 20}
SEEDS = {"calibration": 1, "distillation": 1, "choosing": 2, "evaluation": 3}
#: Photos that choose: package, what pip installs, folder, file. The demo's own photos calibrate
#: and evaluate as they do there.
CHOOSING = (
    ("matplotlib", "matplotlib", "mpl-data/sample_data", "grace_hopper.jpg"),
    ("sklearn", "scikit-learn==1.9.1", "datasets/images", "china.jpg"),
    ("sklearn", "scikit-learn==1.9.1", "datasets/images", "flower.jpg"),
)


def mobilenet_task() -> Task:
    """Return the task."""
    return Task(
        name="mobilenet",
        title="MobileNetV2, ImageNet weights, crops of photos",
        headline="sqnr_db",
        higher_is_better=True,
        build=mobilenet_v2,
        batches=_batches,
        identities=lambda split: frozenset(photo.name for photo in _photos(split)),
        judge=_judge,
        float_answers=_float_answers,
    )


@cache
def _photos(split: Split) -> tuple[Photo, ...]:
    if split == "choosing":
        return tuple(
            _photo(wheel_folder(p, wheel) / folder / f) for p, wheel, folder, f in CHOOSING
        )
    calibration, evaluation = split_photos()
    return tuple(evaluation if split == "evaluation" else calibration)


def _photo(path: Path) -> Photo:
    from PIL import Image

    with Image.open(path) as image:
        return Photo(path.stem, image.convert("RGB"))


@cache
def _batches(split: Split) -> Sequence[Tensor]:
    photos = _photos(split)
    return random_crops(photos, CROPS[split] * len(photos), SEEDS[split]).split(BATCH)


@cache
def _float_answers(split: Split) -> Tensor:
    recipe = (split, CROPS, SEEDS, CHOOSING)
    make = partial(_answer, split)
    return cached_tensors("mobilenet", recipe, make)["answers"]


def _answer(split: Split) -> dict[str, Tensor]:
    model: nn.Module = mobilenet_v2()
    return {"answers": answers(model, _batches(split))}


def _judge(wanted: Tensor, got: Tensor, split: Split) -> dict[str, Figure]:
    agreement, crops = top1_agreement(wanted, got)
    return {
        "sqnr_db": Figure(sqnr_db(wanted, got), crops),
        "agreement": Figure(agreement, crops),
    }
