"""Importing fastinfer.kernels, also where it is not installed, for tests and benchmarks."""

from __future__ import annotations

from fastinfer.ops.kernels_package import load_kernels

__all__ = ["load_kernels"]
