"""Real photos from installed packages: 20 with ImageNet labels, some more without.

The labelled ones come with foolbox (512 x 512), the others with scikit-image. Nothing is
downloaded. Calibration and evaluation never see the same photo.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from PIL.Image import Image

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZE, RESIZED = 224, 256
#: Labelled photos whose crops calibrate; the other 15 evaluate.
CALIBRATION_LABELLED = (3, 7, 11, 15, 19)
#: Colour photos of scikit-image that show what ImageNet shows.
UNLABELLED = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "rocket.jpg",
    "motorcycle_left.png",
    "hubble_deep_field.jpg",
    "retina.jpg",
    "ihc.png",
)


class DemoDataError(RuntimeError):
    """Something the demo needs is not installed; the text says what to install."""


@dataclass(frozen=True)
class Photo:
    """One photo; label is its ImageNet class or None."""

    name: str
    image: Image
    label: int | None = None


def package_folder(package: str, install: str) -> Path:
    """Return where a package lies, without importing it.

    Raises:
        DemoDataError: it is not installed.
    """
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise DemoDataError(f"demo: needs the package {package}: pip install {install}")
    return Path(next(iter(found.submodule_search_locations)))


def labelled_photos() -> list[Photo]:
    """Return the 20 labelled photos in a fixed order.

    Raises:
        DemoDataError: foolbox is not installed, or without its photos.
    """
    install = "--no-deps foolbox==3.3.4"
    folder = package_folder("foolbox", install) / "data"
    paths = sorted(folder.glob("imagenet_*_*.jpg"))
    if len(paths) != 20:
        raise DemoDataError(
            f"demo: expected 20 labelled photos in foolbox, got {len(paths)}: pip install {install}"
        )
    return [Photo(path.stem, _open(path), int(path.stem.split("_")[-1])) for path in paths]


def unlabelled_photos() -> list[Photo]:
    """Return the colour photos that scikit-image carries.

    Raises:
        DemoDataError: scikit-image is not installed.
    """
    folder = package_folder("skimage", "scikit-image") / "data"
    return [Photo(Path(n).stem, _open(folder / n)) for n in UNLABELLED if (folder / n).exists()]


def split_photos() -> tuple[list[Photo], list[Photo]]:
    """Return (calibration photos, evaluation photos), disjoint; the latter all labelled."""
    labelled = labelled_photos()
    calibration = [labelled[index] for index in CALIBRATION_LABELLED] + unlabelled_photos()
    evaluation = [p for i, p in enumerate(labelled) if i not in CALIBRATION_LABELLED]
    return calibration, evaluation


def _open(path: Path) -> Image:
    try:
        from PIL import Image
    except ImportError as error:
        raise DemoDataError("demo: needs Pillow: pip install pillow") from error
    with Image.open(path) as image:
        return image.convert("RGB")


def preprocess(image: Image) -> torch.Tensor:
    """Return [3, 224, 224] float32: resized to 256, centre cropped, normalised, as torchvision."""
    from torchvision.transforms import functional as F

    return _normalised(F.center_crop(F.resize(image, [RESIZED], antialias=True), [SIZE, SIZE]))


def labelled_batch(photos: Sequence[Photo]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ([N, 3, 224, 224] float32, [N] int64 labels) of labelled photos."""
    images = torch.stack([preprocess(photo.image) for photo in photos])
    return images, torch.tensor([photo.label for photo in photos])


def random_crops(photos: Sequence[Photo], count: int, seed: int) -> torch.Tensor:
    """Return [count, 3, 224, 224] float32: random-resized, half of them mirrored, in turns.

    A crop covers 35 to 100 % of its photo at an aspect ratio of 3:4 to 4:3. The same arguments
    give the same crops.
    """
    from torchvision.transforms import functional as F

    generator = torch.Generator().manual_seed(seed)
    crops = []
    for index in range(count):
        image = photos[index % len(photos)].image
        area, ratio, top, left, mirror = torch.rand(5, generator=generator).tolist()
        pixels = image.width * image.height * (0.35 + 0.65 * area)
        aspect = 0.75 * (16 / 9) ** ratio
        width = min(image.width, round((pixels * aspect) ** 0.5))
        height = min(image.height, round((pixels / aspect) ** 0.5))
        y, x = int(top * (image.height - height + 1)), int(left * (image.width - width + 1))
        crop = F.resized_crop(image, y, x, height, width, [SIZE, SIZE], antialias=True)
        crops.append(_normalised(F.hflip(crop) if mirror < 0.5 else crop))
    return torch.stack(crops)


def _normalised(image: Image) -> torch.Tensor:
    from torchvision.transforms import functional as F

    return F.normalize(F.to_tensor(image), MEAN, STD)
