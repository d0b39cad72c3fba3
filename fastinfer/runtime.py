"""The machine and the build: which kernels serve which op, ISA, threads."""

from __future__ import annotations

VERSION = "0.1.0"

try:
    from fastinfer import _C
except ImportError as error:
    _C = None
    _LOAD_ERROR: str | None = str(error)
else:
    _LOAD_ERROR = None
