"""Candidates lowered, timed and judged; what wins is kept."""

from __future__ import annotations

from fastinfer.tune.accuracy import guard_accuracy
from fastinfer.tune.choose import Times, choose
from fastinfer.tune.modules import choose_modules
from fastinfer.tune.sparse_float import leave_out_zeros
from fastinfer.tune.whole import loses, time_whole

__all__ = [
    "Times",
    "choose",
    "choose_modules",
    "guard_accuracy",
    "leave_out_zeros",
    "loses",
    "time_whole",
]
