"""PTX kernels written by hand, for the interpreter's own tests; these need no nvcc."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
from interpreter import Counters, GlobalMemory, Kernel, Launch, Module, run

_HEAD = ".version 9.0\n.target sm_90a\n.address_size 64\n"
_REGISTERS = """
\t.reg .pred %p<16>;
\t.reg .b16 %rs<32>;
\t.reg .b32 %r<256>;
\t.reg .f32 %f<64>;
\t.reg .b64 %rd<64>;
"""


def kernel(body: str, parameters: int = 1, shared: int = 0, dynamic: bool = False) -> Kernel:
    """Return a kernel of 64-bit parameters p0, p1, ..., with `shared` static bytes `tile`."""
    head = _HEAD + (".extern .shared .align 1024 .b8 stages[];\n" if dynamic else "")
    names = ",\n".join(f"\t.param .u64 p{i}" for i in range(parameters))
    variable = f"\t.shared .align 1024 .b8 tile[{shared}];\n" if shared else ""
    text = f"{head}.visible .entry test({names}\n)\n{{{_REGISTERS}{variable}{body}\n\tret;\n\n}}\n"
    return Module(text).kernel("test")


def launch(
    k: Kernel,
    memory: GlobalMemory,
    parameters: Sequence[int] = (),
    threads: tuple[int, int, int] = (32, 1, 1),
    grid: tuple[int, int, int] = (1, 1, 1),
    dynamic: int = 0,
    cluster: int = 1,
    equal_writes: bool = False,
) -> Counters:
    """Run a kernel of 64-bit parameters."""
    content = struct.pack(f"<{len(parameters)}q", *parameters)
    return run(
        k, Launch(grid, threads, content, dynamic, cluster), memory, equal_writes=equal_writes
    )


#: Loads lane i's operands a, b, c of 8 bytes each to %rd1, %rd2, %rd3; %rd5 is its result's place.
LOAD_OPERANDS = """
\tmov.u32 %r0, %tid.x;
\tld.param.u64 %rd4, [p0];
\tld.param.u64 %rd5, [p1];
\tmul.wide.u32 %rd6, %r0, 24;
\tmul.wide.u32 %rd7, %r0, 8;
\tadd.s64 %rd4, %rd4, %rd6;
\tadd.s64 %rd5, %rd5, %rd7;
\tld.global.u64 %rd1, [%rd4];
\tld.global.u64 %rd2, [%rd4+8];
\tld.global.u64 %rd3, [%rd4+16];
\tcvt.u32.u64 %r1, %rd1;
\tcvt.u32.u64 %r2, %rd2;
\tcvt.u32.u64 %r3, %rd3;
\tmov.b32 %f1, %r1;
\tmov.b32 %f2, %r2;
\tmov.b32 %f3, %r3;
\tcvt.u16.u32 %rs1, %r1;
\tcvt.u16.u32 %rs2, %r2;
"""


def on_lanes(statement: str, operands: np.ndarray, kind: str) -> np.ndarray:
    """Return what a statement leaves in %rd0, %r9 or %f9 for operands [32, 3] of 64 bits.

    kind: "b64", "b32" or "f32": of the result.
    """
    result = {"b64": "%rd0", "b32": "%r9", "f32": "%f9"}[kind]
    body = f"{LOAD_OPERANDS}\t{statement}\n\tst.global.{kind} [%rd5], {result};"
    memory = GlobalMemory(1 << 16)
    out = memory.add_result(256)
    launch(kernel(body, 2), memory, (memory.add(operands.astype(np.uint64)), out))
    raw, _ = memory.result(out, 256)
    dtype = {"b64": np.uint64, "b32": np.uint32, "f32": np.float32}[kind]
    return raw.reshape(32, 8)[:, : np.dtype(dtype).itemsize].copy().view(dtype)[:, 0]
