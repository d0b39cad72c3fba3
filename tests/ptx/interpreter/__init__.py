"""Runs the PTX that nvcc makes, on numpy. README.md says what it covers."""

from .counters import Counters, Traffic
from .decode import Kernel, Line, Module
from .faults import Fault
from .global_memory import GlobalMemory
from .machine import Launch
from .scheduler import AHEAD, BEHIND, run

__all__ = [
    "AHEAD",
    "BEHIND",
    "Counters",
    "Fault",
    "GlobalMemory",
    "Kernel",
    "Launch",
    "Line",
    "Module",
    "Traffic",
    "run",
]
