"""The ways a model is converted: as one graph, by submodules that have one, layer by layer."""

from __future__ import annotations

from fastinfer.paths.graph import StageError, convert_graph
from fastinfer.paths.modules import convert_modules
from fastinfer.paths.submodules import convert_submodules

__all__ = ["StageError", "convert_graph", "convert_modules", "convert_submodules"]
