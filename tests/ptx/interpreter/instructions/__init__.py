"""What each instruction does, one file a family; importing them fills the table."""

from . import (
    arithmetic,
    bits,
    compare,
    control,
    convert,
    copies,
    load_store,
    matrix,
    phases,
    warp,
    warpgroup,
)
from .control import STOPS
from .table import bind

__all__ = [
    "STOPS",
    "arithmetic",
    "bind",
    "bits",
    "compare",
    "control",
    "convert",
    "copies",
    "load_store",
    "matrix",
    "phases",
    "warp",
    "warpgroup",
]
