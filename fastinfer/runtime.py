"""The machine and the build: which kernels serve which op, ISA, threads."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch

from fastinfer.ops.catalog import OPS
from fastinfer.ops.register import bind_triton
from fastinfer.types.recorded import RecordedCall

VERSION = "0.1.0"
BUILD_HINT = "build it with `make build` or `pip install -e . --no-build-isolation`"

try:
    from fastinfer import _C
except ImportError as error:
    _C = None
    _LOAD_ERROR: str | None = str(error)
else:
    _LOAD_ERROR = None

# CUDA kernels are a library of their own: it needs a torch with CUDA. Where that torch finds no GPU
# it loads all the same, and nothing calls it.
_C_cuda: Any = None
_CUDA_ERROR: str | None = "this torch is built without CUDA"
if torch.version.cuda is not None:
    try:
        from fastinfer import _C_cuda
    except ImportError as error:
        _CUDA_ERROR = str(error)
    else:
        _CUDA_ERROR = None


def _has_cuda_kernel(name: str) -> bool:
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(name, "CUDA"))


#: Ops of CUDA tensors that Triton serves, which is looked for and not imported yet.
TRITON_OPS: tuple[str, ...] = ()
if torch.version.cuda is not None and find_spec("triton") is not None:
    _triton_library, TRITON_OPS = bind_triton(OPS, _has_cuda_kernel)

#: Names the instruction set to start with, instead of the best this CPU has.
ISA_VARIABLE = "FASTINFER_CPU_ISA"


def _isa_error(name: str, supported: Sequence[str]) -> str | None:
    """Return what is wrong with ISA_VARIABLE=name on a CPU with these sets, or None."""
    if not name or name in supported:
        return None
    return (
        f"{ISA_VARIABLE}: expected an instruction set of this CPU ({', '.join(supported)}), "
        f"got {name!r}; set one of these, or unset it for the best"
    )


# The one variable read at import: ops can be called from here on without passing by this module,
# and weights packed before a change could not run after it. A wrong value is an error at first use,
# as a missing extension is.
_ISA_ERROR: str | None = None
if _C is not None:
    _wanted = os.environ.get(ISA_VARIABLE, "").strip()
    _ISA_ERROR = _isa_error(_wanted, _C.supported_isas())
    if _wanted and _ISA_ERROR is None:
        _C.set_isa(_wanted)


def require_kernels() -> Any:
    """Return the compiled extension.

    Raises:
        RuntimeError: it is not there, or of another version; the text says how to build it.
        ValueError: FASTINFER_CPU_ISA names no instruction set of this CPU.
    """
    from fastinfer.types.packed import VERSION as PACKED_VERSION

    if _C is None:
        raise RuntimeError(f"fastinfer._C is missing ({_LOAD_ERROR}); {BUILD_HINT}")
    if getattr(_C, "PACKED_VERSION", None) != PACKED_VERSION:
        raise RuntimeError(
            f"fastinfer._C packs weights of version {getattr(_C, 'PACKED_VERSION', None)}, this "
            f"package wants {PACKED_VERSION}; {BUILD_HINT}"
        )
    if _ISA_ERROR is not None:
        raise ValueError(_ISA_ERROR)
    return _C


def has_kernels() -> bool:
    """Return True when the compiled extension is there; `require_kernels` says what is wrong."""
    return _C is not None


def require_cuda_kernels() -> Any:
    """Return the compiled CUDA extension.

    Raises:
        RuntimeError: it is not there; the text says why.
    """
    if _C_cuda is None:
        raise RuntimeError(f"fastinfer._C_cuda is missing ({_CUDA_ERROR}); {BUILD_HINT}")
    return _C_cuda


def isa() -> str:
    """Return the instruction set the CPU kernels use.

    It is the best this CPU has, or the one that the environment variable FASTINFER_CPU_ISA named
    when fastinfer was imported (scalar, avx2, avx512, avx512vnni or amx), until `set_isa`.
    """
    return str(require_kernels().isa())


def supported_isas() -> list[str]:
    """Return the instruction sets this CPU has, lowest first."""
    return list(require_kernels().supported_isas())


def set_isa(name: str) -> None:
    """Use another instruction set; packed models need `fastinfer.nn.repack` afterwards.

    To start with another one, so that nothing needs repacking, set FASTINFER_CPU_ISA instead.
    Raises ValueError for a name this CPU does not have.
    """
    require_kernels().set_isa(name)


@contextmanager
def recording() -> Iterator[list[RecordedCall]]:
    """Give a list that holds this thread's calls of the engine when the block has ended.

    Raises:
        RuntimeError: this thread is in such a block.
    """
    kernels = require_kernels()
    calls: list[RecordedCall] = []
    kernels.start_recording()
    try:
        yield calls
    finally:
        calls += map(RecordedCall.from_dict, kernels.stop_recording())


def peak_gops(threads: int) -> float | None:
    """Return what the int8 kernels could reach on so many threads, in 10^9 operations a second.

    A multiply-add is two. Measured in some 20 ms: the instructions by which the ISA's GEMM
    multiplies exactly, on registers alone, on all threads at once, the best of 60 runs. None for
    the scalar ISA. It is the reach of the kernels here and now, not a figure of the data sheet.
    """
    multiply_adds = float(require_kernels().peak_multiply_adds(threads))
    return 2e-9 * multiply_adds if multiply_adds else None


def show_ops() -> dict[str, dict[str, str]]:
    """Return op -> device -> "kernel", "triton" or "reference": who serves each op."""
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    found = {
        op.name: {
            device: "kernel" if has(op.qualified_name, device) else "reference"
            for device in ("CPU", "CUDA")
        }
        for op in OPS
    }
    for name in TRITON_OPS:
        found[name]["CUDA"] = "triton"
    return found


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _gpus() -> list[str]:
    """Return name and compute capability of each GPU that torch sees."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    found = map(torch.cuda.get_device_properties, range(count))
    return [f"{gpu.name} (compute capability {gpu.major}.{gpu.minor})" for gpu in found]


def info() -> dict[str, Any]:
    """Return version, CPU, instruction sets, threads, CUDA, and who serves each op."""
    built = _C is not None
    kernels: str | None = _ISA_ERROR
    if not built:
        kernels = f"extension missing: {_LOAD_ERROR}; {BUILD_HINT}"
    return {
        "version": VERSION,
        "torch": torch.__version__,
        "cpu": _cpu_name(),
        "isa": kernels or isa(),
        "supported_isas": list(_C.supported_isas()) if built else [],
        "threads": torch.get_num_threads(),
        "cuda": torch.cuda.is_available(),
        "gpus": _gpus(),
        "cuda_kernels": "built" if _C_cuda is not None else f"missing: {_CUDA_ERROR}",
        "ops": show_ops(),
    }
