"""Builds PTX, and the launchers against a fake CUDA runtime, with nvcc."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
HERE = Path(__file__).resolve().parent
CSRC = ROOT / "csrc"

#: Units with kernels, and the architecture that each is compiled for here.
UNITS = {
    "quantize_launch": "80",
    "float_rows_launch": "80",
    "int8_first_conv_launch": "80",
    "quantize_rows_launch": "80",
    "pointwise_launch": "80",
    "pool_launch": "80",
    "upsample_launch": "80",
    "int8_gemm_mma": "80",
    "int8_depthwise_launch": "80",
    "int8_gemm_wgmma": "90a",
    "int8_sparse_mma": "80",
    "int8_sparse_wgmma": "90a",
    "int8_gather_wgmma": "90a",
    "int8_patch_wgmma": "90a",
}

#: The fake runtime, and what ctypes calls.
CALLS = ("recorder", "calls", "calls_between", "calls_rows")

FLAGS = ["-std=c++20", "--expt-relaxed-constexpr", "-lineinfo", "-Xcompiler", "-fPIC"]


def find_nvcc() -> str | None:
    """Return CUDA's compiler: of CUDA_HOME, or else on the PATH."""
    home = os.environ.get("CUDA_HOME")
    return (shutil.which("nvcc", path=f"{home}/bin") if home else None) or shutil.which("nvcc")


def nvcc(*arguments: str | Path) -> None:
    """Run nvcc; AssertionError with what it says where it fails."""
    command = [str(find_nvcc()), *FLAGS, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def compile_unit(name: str, folder: Path) -> tuple[str, Path]:
    """Return a unit's PTX, and an object with its launchers, from one run of nvcc."""
    arch = UNITS[name]
    keep = folder / name
    keep.mkdir()
    target = folder / f"{name}.o"
    code = f"arch=compute_{arch},code=compute_{arch}"
    nvcc("-gencode", code, "-O3", "-c", CSRC / "cuda" / f"{name}.cu", "-o", target,
         "--keep", "--keep-dir", keep)  # fmt: skip
    return (keep / f"{name}.ptx").read_text(), target


def compile_ptx(source: Path, arch: str, folder: Path) -> str:
    """Return the PTX of a source file; it is written to a folder."""
    target = folder / f"{source.stem}.ptx"
    nvcc(f"-arch=compute_{arch}", "-O3", "-ptx", source, "-o", target)
    return target.read_text()


def link_launchers(objects: list[Path], folder: Path) -> Path:
    """Return the library of these objects' launchers, on the fake runtime."""
    names = ("gemm_config", "gemm_costs", "choice", "pool_choice", "first_conv_choice",
             "pack_two_of_four", "pack_gathered")  # fmt: skip
    choices = [CSRC / "cuda" / f"{name}.cpp" for name in names]
    sources = [*(HERE / f"{n}.cpp" for n in CALLS), *choices]
    library = folder / "launchers.so"
    # Bsymbolic: torch has brought a real CUDA runtime into the process.
    nvcc("-O1", "-shared", "-cudart", "none", "-Xlinker", "-Bsymbolic", *objects, *sources,
         "-o", library)  # fmt: skip
    return library
