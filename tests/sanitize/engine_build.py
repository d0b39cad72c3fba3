"""Builds the engine without torch, with a C++ program of this folder, under a sanitizer.

What to build and its flags come from setup.py. Objects are kept by what goes into them, so a
changed file, or a mutant of it, compiles only the units that read it.
"""

from __future__ import annotations

import hashlib
import os
import re
import runpy
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

from fastinfer import runtime

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(__file__).resolve().parent
BUILD = ROOT / "build" / "sanitize"
COMPILER = os.environ.get("CXX", "g++")
#: stress.cpp can make this function fail.
_WRAP = "-Wl,--wrap=aligned_alloc"
_INCLUDE = re.compile(r'^\s*#include\s+(["<])([^">]+)[">]', re.MULTILINE)


@dataclass(frozen=True)
class Sanitizer:
    """Flags of a build and the environment its programs run in."""

    name: str
    flags: tuple[str, ...]
    options: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return self.name

    @property
    def environment(self) -> dict[str, str]:
        """Return this process's environment with the sanitizer's options."""
        return {**os.environ, **dict(self.options)}


PLAIN = Sanitizer("plain", ("-g1",))
# die_after_fork=0: a child forked from a process with threads may start its own. That is safe while
# the other threads sleep, as they do where stress.cpp forks under a sanitizer.
THREAD = Sanitizer(
    "thread",
    ("-g1", "-fsanitize=thread"),
    (("TSAN_OPTIONS", "halt_on_error=1:exitcode=66:die_after_fork=0:history_size=4"),),
)
ADDRESS = Sanitizer(
    "address",
    ("-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"),
    (
        ("ASAN_OPTIONS", "detect_stack_use_after_return=1"),
        ("UBSAN_OPTIONS", "print_stacktrace=1"),
    ),
)


@cache
def setup_names() -> dict[str, Any]:
    """Return what setup.py defines; it builds nothing."""
    with mock.patch("setuptools.setup"), mock.patch.dict(os.environ):
        return runpy.run_path(str(ROOT / "setup.py"))


def _reads(source: Path, csrc: Path) -> tuple[set[Path], set[str]]:
    """Return the files of the project that a unit reads, itself too, and the system's by name."""
    files, system, waiting = set(), set(), [source]
    while waiting:
        path = waiting.pop()
        if path in files:
            continue
        files.add(path)
        for quote, name in _INCLUDE.findall(path.read_text()):
            places = [path.parent / name, csrc / name]
            found = next((p.resolve() for p in places if quote == '"' and p.exists()), None)
            if found is None:
                system.add(name)
            else:
                waiting.append(found)
    return files, system


def units(csrc: Path) -> dict[Path, list[str]]:
    """Return the units of setup.py that reach no header of torch, and the flags of each."""
    names = setup_names()
    flags = {name: ["-ffp-contract=off"] for name in names["SOURCES"]} | names["ISA_FLAGS"]
    found = {}
    for name, own in flags.items():
        source = csrc.parent / name
        _, system = _reads(source, csrc)
        if not any(header.startswith(("torch/", "pybind11/")) for header in system):
            found[source] = own
    return found


def build(sanitizer: Sanitizer, program: str, csrc: Path = ROOT / "csrc") -> Path:
    """Return the program of tests/sanitize/<program>.cpp, linked with the units of `csrc`.

    Raises RuntimeError with the compiler's output when it does not build, and for warnings.
    """
    csrc = csrc.resolve()
    base = [f for f in setup_names()["BASE_FLAGS"] if not f.startswith("-fmacro-prefix-map")]
    base += ["-Werror", f"-I{csrc}"]
    for folder in (sanitizer.name, PLAIN.name):
        (BUILD / folder).mkdir(parents=True, exist_ok=True)
    sources = units(csrc) | {FOLDER / f"{program}.cpp": []}

    def compiled(item: tuple[Path, list[str]]) -> Path:
        source, own = item
        # Kernels this CPU cannot run are linked only, and take minutes to build under a sanitizer.
        is_run = source.parent.name != "isa" or source.stem in runtime.supported_isas()
        kind = sanitizer if is_run else PLAIN
        flags = [*base, *kind.flags, *own]
        digest = hashlib.sha256(repr([COMPILER, *(f for f in flags if f[:2] != "-I")]).encode())
        for path in sorted(_reads(source, csrc)[0], key=lambda p: p.name):
            digest.update(path.read_bytes())
        target = BUILD / kind.name / f"{source.stem}-{digest.hexdigest()[:16]}.o"
        if not target.exists():
            unfinished = target.with_suffix(f".{os.getpid()}.tmp")
            _run([*flags, "-c", str(source), "-o", str(unfinished)])
            unfinished.rename(target)
        return target

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        objects = sorted(pool.map(compiled, sources.items()))
    digest = hashlib.sha256(" ".join(o.name for o in objects).encode()).hexdigest()[:16]
    target = BUILD / sanitizer.name / f"{program}-{digest}"
    if not target.exists():
        _run([*sanitizer.flags, *map(str, objects), "-pthread", _WRAP, "-o", str(target)])
    return target


def _run(arguments: list[str]) -> None:
    done = subprocess.run([COMPILER, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{COMPILER} {' '.join(arguments)}\n{done.stderr}")
