"""Triton kernels: skipped by name where Triton is missing."""

from __future__ import annotations

import importlib.util

if importlib.util.find_spec("triton") is None:
    collect_ignore_glob = ["test_row_kernels.py", "test_products.py", "test_budget.py"]
