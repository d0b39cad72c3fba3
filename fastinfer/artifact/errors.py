"""What is wrong with an artifact."""

from __future__ import annotations


class ArtifactError(ValueError):
    """An artifact is missing, damaged, of a newer version, or names what this release has not."""


class NoDeviceError(RuntimeError):
    """The device a model is to be loaded on is not there, or has no kernels."""
