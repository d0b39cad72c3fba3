"""Why a model has no graph."""

from __future__ import annotations


class CaptureError(Exception):
    """The model cannot be captured; the text is the reason a report gives."""
