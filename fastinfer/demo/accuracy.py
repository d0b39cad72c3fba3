"""The demo's accuracy figures, and how many samples stand behind each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from fastinfer.measure import sqnr_db, top1_agreement

#: Crops that the float model itself is sure of are where disagreement means something.
SURE_PROBABILITY = 0.3


@dataclass(frozen=True)
class Agreement:
    """Agreement with the float model on unseen crops; `sure_*` where its p is above 0.3."""

    top1: float
    crops: int
    sure_top1: float
    sure_crops: int
    sqnr_db: float


@dataclass(frozen=True)
class Labelled:
    """Labelled photos answered right at first, and within five, guesses."""

    top1: int
    top5: int
    photos: int


@dataclass(frozen=True)
class ModelAccuracy:
    """One model: labelled photos that never calibrated, all labelled photos, agreement."""

    held_out: Labelled
    all_photos: Labelled
    agreement: Agreement

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON-able data."""
        return asdict(self)


def logits(
    model: Callable[[torch.Tensor], torch.Tensor],
    images: torch.Tensor,
    batch: int = 16,
    progress: Callable[[int], None] | None = None,
) -> torch.Tensor:
    """Return [N, classes] float32 logits of images [N, 3, H, W]."""
    parts = []
    with torch.inference_mode():
        for part in images.split(batch):
            parts.append(model(part).float())
            if progress is not None:
                progress(len(part))
    return torch.cat(parts)


def labelled_score(answers: torch.Tensor, labels: torch.Tensor) -> Labelled:
    """Return how many of [N, classes] logits are right, labels [N]."""
    guesses = answers.topk(5, dim=1).indices == labels[:, None]
    return Labelled(int(guesses[:, 0].sum()), int(guesses.sum()), len(labels))


def agreement(reference: torch.Tensor, answers: torch.Tensor) -> Agreement:
    """Return how two models' [N, classes] logits agree."""
    top1, crops = top1_agreement(reference, answers)
    sure, sure_crops = top1_agreement(reference, answers, min_probability=SURE_PROBABILITY)
    return Agreement(top1, crops, sure, sure_crops, sqnr_db(reference, answers))
