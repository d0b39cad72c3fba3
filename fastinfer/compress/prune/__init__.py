"""Which weights become zero."""

from __future__ import annotations

from fastinfer.compress.prune.masks import largest_kept

__all__ = ["largest_kept"]
