"""What every benchmark shares: the machine's measured peak, shapes from CSV, JSON results."""

from __future__ import annotations

import csv
import functools
import json
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastinfer import runtime
from fastinfer.measure import describe_machine
from fastinfer.measure.machine import cpu_model
from fastinfer.report_text import format_table

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
PROGRAM_FLAGS = ("-std=c++20", "-O2", "-mavx2", "-mfma", "-pthread")


def read_shapes(name: str) -> list[dict[str, Any]]:
    """Return the rows of shapes/<name>.csv; what looks like a number is one."""
    with (HERE / "shapes" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return [
            {key: int(v) if v.lstrip("-").isdigit() else v for key, v in row.items()}
            for row in csv.DictReader(file)
        ]


def measure_peak(threads: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Return what peak.cpp measures, by number of threads; {} where it cannot be built.

    Takes about a second per entry.
    """
    program = _built("peak")
    if program is None:
        return {}
    return {
        count: json.loads(
            subprocess.run([program, str(count)], check=True, capture_output=True, text=True).stdout
        )
        for count in threads
    }


def measure_handover() -> float | None:
    """Return the ns that a line of cache takes from one CPU to another and back; takes 50 ms.

    CPUs that share an L3 take 54 (Zen 4), those that do not 330: threads then wait for what others
    made, and virtual machines are moved from one to the other. None where handover.cpp cannot be
    built, or there is one CPU.
    """
    program = _built("handover")
    if program is None:
        return None
    ran = subprocess.run([program], check=False, capture_output=True, text=True)
    return float(ran.stdout) if ran.returncode == 0 else None


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """Return the folder of this process's programs; it goes when the process ends."""
    return tempfile.TemporaryDirectory()


@functools.cache
def _built(name: str) -> str | None:
    """Return the program made of <name>.cpp; None where it cannot be built."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None or platform.machine() not in ("x86_64", "AMD64"):
        return None
    program = str(Path(_folder().name) / name)
    build = [compiler, *PROGRAM_FLAGS, str(HERE / f"{name}.cpp"), "-o", program]
    subprocess.run(build, check=True, capture_output=True, text=True)
    return program


def machine_facts() -> dict[str, Any]:
    """Return machine, versions and commit, with the ISA of our kernels."""
    try:
        kernels = runtime.isa()
    except RuntimeError as error:
        kernels = f"none: {error}"
    return describe_machine(isa=kernels)


#: Vendor, family, first and last model number, name. Virtual machines hide a product's name, but
#: not these. Source: the CPU tables of Linux (intel-family.h, amd.c).
MICROARCHITECTURES = (
    ("AuthenticAMD", 23, 0x00, 0x2F, "zen1"),
    ("AuthenticAMD", 23, 0x30, 0xFF, "zen2"),
    ("AuthenticAMD", 25, 0x00, 0x0F, "zen3"),
    ("AuthenticAMD", 25, 0x10, 0x1F, "zen4"),
    ("AuthenticAMD", 25, 0x20, 0x5F, "zen3"),
    ("AuthenticAMD", 25, 0x60, 0xFF, "zen4"),
    ("AuthenticAMD", 26, 0x00, 0xFF, "zen5"),
    ("GenuineIntel", 6, 0x3F, 0x3F, "haswell"),
    ("GenuineIntel", 6, 0x4F, 0x4F, "broadwell"),
    ("GenuineIntel", 6, 0x55, 0x55, "skylakex"),
    ("GenuineIntel", 6, 0x6A, 0x6C, "icelakex"),
    ("GenuineIntel", 6, 0x8F, 0x8F, "sapphirerapids"),
    ("GenuineIntel", 6, 0xCF, 0xCF, "emeraldrapids"),
    ("GenuineIntel", 6, 0xAD, 0xAE, "graniterapids"),
)


def microarchitecture() -> str:
    """Return a word for the kind of processor, made of its name where the table has none."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(encoding="utf-8") if cpuinfo.exists() else ""
    keys = ("vendor_id", "cpu family", "model")
    found = [re.search(rf"^{key}\s*: (\S+)$", text, re.MULTILINE) for key in keys]
    vendor, family, model = (match.group(1) if match else "-1" for match in found)
    for maker, kind, first, last, name in MICROARCHITECTURES:
        if (vendor, int(family)) == (maker, kind) and first <= int(model) <= last:
            return name
    return re.sub(r"[^a-z0-9]+", "-", cpu_model().lower()).strip("-")


def results_path(benchmark: str) -> Path:
    """Return where this machine's figures of a benchmark belong, in results/."""
    return RESULTS / f"{benchmark}_{microarchitecture()}_{runtime.isa()}.json"


def show(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows of equal keys as a table."""
    if rows:
        headers = list(rows[0])
        print(
            format_table(headers, [[_text(row[h]) for h in headers] for row in rows], title=title)
        )
        print(flush=True)


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    return str(value)


def write_json(path: Path | None, **sections: Any) -> None:
    """Write the sections with the machine's facts, when there is a path."""
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    data = {"machine": machine_facts(), **sections}
    path.write_text(json.dumps(data, indent=1, default=str) + "\n", encoding="utf-8")
    print(f"wrote {path}")
