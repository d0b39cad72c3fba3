"""The product microkernels keep their accumulators in registers: no vector touches the stack."""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

#: (object, kernel, how many instantiations).
KERNELS = [
    ("avx2", "int8_gemm_pairs", 8),
    ("avx2", "int8_gemm_words", 14),
    ("avx2", "sparse_float_rows_of", 6),
    ("avx512", "int8_gemm_pairs", 8),
    ("avx512", "int8_gemm_words", 12),
    ("avx512vnni", "int8_gemm_dot", 26),
    ("avx512vnni", "int8_gemm_row", 2),
    ("avx512vnni", "int8_gemm_sparse", 15),
    ("avx512vnni", "sparse_float_rows_of", 4),
    ("avx512vnni", "winograd_late_products", 24),
    ("avx512vnni", "winograd_products", 28),
    ("amx", "int8_gemm_sparse", 20),
    ("amx", "int8_gemm_row", 2),
]
MULTIPLY = re.compile(r"^v(pmaddubsw|pmaddwd|pdpbusd|pdpwssd|fmadd\d+ps)\b")
VECTOR_ON_STACK = re.compile(r"%[xyz]mm\d+.*\(%r[sb]p|\(%r[sb]p.*%[xyz]mm\d+")


def object_file(isa: str) -> Path | None:
    found = sorted(
        (ROOT / "build").glob(f"temp*/isa/{isa}.o"), key=lambda path: path.stat().st_mtime
    )
    return found[-1] if found else None


@cache
def functions(path: Path) -> dict[str, list[str]]:
    """Return the instructions of every function by demangled name."""
    dump = subprocess.run(
        ["objdump", "-d", "--no-show-raw-insn", str(path)],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    text = subprocess.run(
        ["c++filt"], input=dump, capture_output=True, text=True, check=True
    ).stdout
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        header = re.match(r"^[0-9a-f]+ <(.*)>:$", line)
        if header:
            current = found.setdefault(header[1], [])
        elif "\t" in line and found:
            current.append(line.split("\t", 1)[1].strip())
    return found


def stack_accesses(instructions: list[str]) -> list[str]:
    """Return the vector loads and stores of the stack between first and last multiply."""
    at = [i for i, text in enumerate(instructions) if MULTIPLY.match(text)]
    assert at, "no multiply instruction found"
    inside = instructions[at[0] : at[-1] + 1]
    return [text for text in inside if VECTOR_ON_STACK.search(text)]


def test_pattern_finds_a_spill():
    multiply = "vpmaddubsw (%r8),%ymm1,%ymm2"
    spill = [multiply, "vmovdqa %ymm3,0x40(%rsp)", multiply]
    assert stack_accesses(spill) == [spill[1]]
    assert stack_accesses(["vpdpbusd -0x20(%rbp),%zmm1,%zmm2"])
    assert not stack_accesses([spill[0], "mov %rax,0x8(%rsp)", spill[2]])


def bodies_of(isa: str, kernel: str) -> dict[str, list[str]]:
    """Return the instructions of a kernel's instantiations by name; skips where there are none."""
    missing = [tool for tool in ("objdump", "c++filt") if shutil.which(tool) is None]
    path = object_file(isa)
    if missing or path is None:
        pytest.skip(f"{isa}: {', '.join(missing) or 'object file'} not found")
    pattern = re.compile(rf"\b{kernel}<")
    return {name: body for name, body in functions(path).items() if pattern.search(name)}


@pytest.mark.parametrize(("isa", "kernel", "count"), KERNELS)
def test_no_spill(isa, kernel, count):
    bodies = bodies_of(isa, kernel)
    assert len(bodies) == count, sorted(bodies)
    spilled = {name: found for name, body in bodies.items() if (found := stack_accesses(body))}
    assert not spilled


@pytest.mark.parametrize("kernel", ["int8_gemm_dot", "int8_gemm_sparse"])
def test_weights_come_by_either_hint(kernel):
    """Weights that a call reads once are asked for in another way: csrc/cpu/read_once.h."""
    bodies = bodies_of("avx512vnni", kernel)
    assert bodies
    for name, body in bodies.items():
        hints = {text.split()[0] for text in body if text.startswith("prefetch")}
        assert {"prefetcht1", "prefetchnta"} <= hints, name
