"""Timing and error: how fast, how large, how far off. Nothing here changes a model."""

from fastinfer.measure.accuracy import cosine, max_abs, sqnr_db, top1_agreement
from fastinfer.measure.benchmark import BenchmarkRow, BenchmarkTable, benchmark
from fastinfer.measure.compare import Comparison, TensorError, compare
from fastinfer.measure.latency import Timing, fixed_threads, time_interleaved
from fastinfer.measure.machine import describe_machine
from fastinfer.measure.memory import model_bytes, peak_bytes

__all__ = [
    "BenchmarkRow",
    "BenchmarkTable",
    "Comparison",
    "TensorError",
    "Timing",
    "benchmark",
    "compare",
    "cosine",
    "describe_machine",
    "fixed_threads",
    "max_abs",
    "model_bytes",
    "peak_bytes",
    "sqnr_db",
    "time_interleaved",
    "top1_agreement",
]
