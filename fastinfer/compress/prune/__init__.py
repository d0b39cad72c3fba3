"""Which weights become zero."""

from __future__ import annotations

from fastinfer.compress.prune.gradual import GradualPruner
from fastinfer.compress.prune.hold import MaskHold, hold_masks
from fastinfer.compress.prune.masks import largest_kept
from fastinfer.compress.prune.report import LayerPruning, PruningReport, pruning_report
from fastinfer.compress.prune.schedule import CubicSchedule

__all__ = [
    "CubicSchedule",
    "GradualPruner",
    "LayerPruning",
    "MaskHold",
    "PruningReport",
    "hold_masks",
    "largest_kept",
    "pruning_report",
]
