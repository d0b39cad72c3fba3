"""Post-training quantization: observe, decide, correct."""

from __future__ import annotations

from fastinfer.compress.quantize.calibrate import Calibrator
from fastinfer.compress.quantize.pipeline import quantize

__all__ = ["Calibrator", "quantize"]
