"""The machine and the build: which kernels serve which op, ISA, threads."""

from __future__ import annotations

VERSION = "0.1.0"

BUILD_HINT = "build it with `pip install -e . --no-build-isolation` (or `make build`)"

try:
    from fastinfer import _C
except ImportError as error:
    _C = None
    _LOAD_ERROR: str | None = str(error)
else:
    _LOAD_ERROR = None


def _compiled():  # noqa: ANN202
    if _C is None:
        raise RuntimeError(f"fastinfer._C is missing ({_LOAD_ERROR}); {BUILD_HINT}")
    return _C


def isa() -> str:
    """Return the instruction set the CPU kernels use."""
    return _compiled().isa()


def supported_isas() -> list[str]:
    """Return the instruction sets this CPU has, lowest first."""
    return _compiled().supported_isas()


def set_isa(name: str) -> None:
    """Use another instruction set; weights packed before must be packed again."""
    _compiled().set_isa(name)
