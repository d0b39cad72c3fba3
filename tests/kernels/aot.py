"""Compiles Triton kernels for GPUs that are not here, and reads what came of it."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

#: Triton's wheels bring it; a build of one's own finds the toolkit's.
CUOBJDUMP = shutil.which(
    "cuobjdump", path=f"{Path(triton.__file__).parent}/backends/nvidia/bin"
) or shutil.which("cuobjdump")
ARCHS = (80, 90)


@dataclass(frozen=True)
class Compiled:
    """What the compiler made of a kernel: registers, bytes of stack, instructions."""

    registers: int
    stack: int
    code: str


def cuobjdump(path: str, flag: str) -> str:
    assert CUOBJDUMP is not None
    command = [CUOBJDUMP, flag, path]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def compile_for(
    kernel: Any,
    arch: int,
    types: dict[str, str],
    constants: dict[str, Any],
    warps: int,
    stages: int = 2,
) -> Compiled:
    """Compile a kernel; pointers and integers are multiples of 16, as most calls' are.

    types: argument -> Triton's name of its type, of all that are no constants.
    """
    names = kernel.arg_names
    signature = {name: types.get(name, "constexpr") for name in names}
    assert set(types) | set(constants) == set(names), set(names) ^ (set(types) | set(constants))
    aligned = {
        (i,): [["tt.divisibility", 16]]
        for i, name in enumerate(names)
        if signature[name][0] == "*" or signature[name] == "i32"
    }
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=aligned)
    made = triton.compile(
        source,
        target=GPUTarget("cuda", arch, 32),
        options={"num_warps": warps, "num_stages": stages, "enable_fp_fusion": False},
    )  # fmt: skip
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        said = cuobjdump(file.name, "-res-usage")
        registers, stack = re.search(r"REG:(\d+) STACK:(\d+)", said).groups()
        return Compiled(int(registers), int(stack), cuobjdump(file.name, "-sass"))
