"""What is wrong with an artifact."""

from __future__ import annotations


class ArtifactError(ValueError):
    """An artifact is missing, damaged, of a newer version, or names what this release has not."""
