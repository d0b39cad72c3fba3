"""From plans to modules: the captured graph, or the user's own modules one by one."""

from __future__ import annotations

from fastinfer.lower.lower import lower
from fastinfer.lower.module_path import lower_modules

__all__ = ["lower", "lower_modules"]
