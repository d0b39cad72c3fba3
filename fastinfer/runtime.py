"""The machine and the build: which kernels serve which op, ISA, threads."""

from __future__ import annotations

import platform
from typing import Any

import torch

from fastinfer.ops.catalog import OPS

VERSION = "0.1.0"
BUILD_HINT = "build it with `make build` or `pip install -e . --no-build-isolation`"

try:
    from fastinfer import _C
except ImportError as error:
    _C = None
    _LOAD_ERROR: str | None = str(error)
else:
    _LOAD_ERROR = None


def require_kernels() -> Any:
    """Return the compiled extension; RuntimeError, saying how to build, when it is not there."""
    from fastinfer.types.packed import VERSION as PACKED_VERSION

    if _C is None:
        raise RuntimeError(f"fastinfer._C is missing ({_LOAD_ERROR}); {BUILD_HINT}")
    if getattr(_C, "PACKED_VERSION", None) != PACKED_VERSION:
        raise RuntimeError(
            f"fastinfer._C packs weights of version {getattr(_C, 'PACKED_VERSION', None)}, this "
            f"package wants {PACKED_VERSION}; {BUILD_HINT}"
        )
    return _C


def isa() -> str:
    """Return the instruction set the CPU kernels use."""
    return str(require_kernels().isa())


def supported_isas() -> list[str]:
    """Return the instruction sets this CPU has, lowest first."""
    return list(require_kernels().supported_isas())


def set_isa(name: str) -> None:
    """Use another instruction set; packed models need `fastinfer.nn.repack` afterwards.

    Raises ValueError for a name this CPU does not have.
    """
    require_kernels().set_isa(name)


def show_ops() -> dict[str, dict[str, str]]:
    """Return op -> device -> "kernel" or "reference": who serves each op."""
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    return {
        op.name: {
            device: "kernel" if has(op.qualified_name, device) else "reference"
            for device in ("CPU", "CUDA")
        }
        for op in OPS
    }


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def info() -> dict[str, Any]:
    """Return version, CPU, instruction sets, threads, CUDA, and who serves each op."""
    built = _C is not None
    return {
        "version": VERSION,
        "torch": torch.__version__,
        "cpu": _cpu_name(),
        "isa": isa() if built else f"extension missing: {_LOAD_ERROR}; {BUILD_HINT}",
        "supported_isas": supported_isas() if built else [],
        "threads": torch.get_num_threads(),
        "cuda": torch.cuda.is_available(),
        "ops": show_ops(),
    }
