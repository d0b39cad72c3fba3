"""Accuracy back after compression: training on a teacher's answers, or on a task."""

from __future__ import annotations

from fastinfer.compress.distill.checkpoint import CheckpointError
from fastinfer.compress.distill.reconstruct import BlockRecord, reconstruct
from fastinfer.compress.distill.recovery import distill, finetune
from fastinfer.compress.distill.trainer import DivergedError
from fastinfer.compress.distill.training import EpochRecord, Training

__all__ = [
    "BlockRecord",
    "CheckpointError",
    "DivergedError",
    "EpochRecord",
    "Training",
    "distill",
    "finetune",
    "reconstruct",
]
