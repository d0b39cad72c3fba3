"""Converted models on disk: JSON and safetensors, nothing that runs when it is read."""

from __future__ import annotations

from fastinfer.artifact.errors import ArtifactError
from fastinfer.artifact.load import load
from fastinfer.artifact.save import save

__all__ = ["ArtifactError", "load", "save"]
