"""From plans to modules: the captured graph, or the user's own modules one by one."""

from __future__ import annotations

from fastinfer.lower.lower import lower
from fastinfer.lower.module_path import lower_modules, with_parts
from fastinfer.lower.regions import checked_regions

__all__ = ["checked_regions", "lower", "lower_modules", "with_parts"]
