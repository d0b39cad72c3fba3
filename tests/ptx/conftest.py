"""PTX and launchers, compiled once a session, in the background of the tests that need neither."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from host.build import UNITS, compile_unit, find_nvcc, link_launchers
from host.launchers import Launchers
from interpreter import Counters, Kernel, Module
from ptx_cases import Launched
from ptx_mutants import Mutant, batches, compile_mutants
from ptx_sparse_mutants import MUTANTS


@dataclass
class Built:
    """The kernels' PTX by unit, and the launchers; `check` runs a launch once a session."""

    modules: dict[str, Module]
    library: Path
    _checked: dict[Launched, Counters] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.launchers = Launchers(self.library, self.kernel)

    def kernel(self, name: str) -> Kernel:
        """Return a kernel by its mangled name."""
        return next(m for m in self.modules.values() if name in m.names).kernel(name)

    def check(self, launch: Launched) -> Counters:
        """Return what a launch was counted by; raises where its result is wrong."""
        if launch not in self._checked:
            run = launch.prepare(self.launchers)
            self._checked[launch] = run.check(order=launch.order)
        return self._checked[launch]


@pytest.fixture(scope="session")
def compiler(tmp_path_factory) -> Iterator[ThreadPoolExecutor]:
    """Return two threads for nvcc; skips where there is none."""
    if find_nvcc() is None:
        pytest.skip("the CUDA kernels' PTX: nvcc is not on the PATH or in CUDA_HOME")
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.fixture(scope="session")
def mutant_ptx(compiler, tmp_path_factory) -> dict[Mutant, Future[Module]]:
    """Return the unit that each mutant is in, as it comes."""
    units = {
        batch: compiler.submit(compile_mutants, batch, tmp_path_factory.mktemp("mutants"))
        for batch in batches(MUTANTS)
    }
    return {mutant: unit for batch, unit in units.items() for mutant in batch}


@pytest.fixture(scope="session")
def units(compiler, tmp_path_factory) -> tuple[Path, dict[str, Future[tuple[str, Path]]]]:
    """Return a folder, and the PTX and object of every unit, as they come."""
    folder = tmp_path_factory.mktemp("ptx")
    # The one that takes longest first.
    return folder, {name: compiler.submit(compile_unit, name, folder) for name in reversed(UNITS)}


@pytest.fixture(scope="session")
def built(units) -> Built:
    """Return the kernels and their launchers."""
    folder, futures = units
    done = {name: unit.result() for name, unit in futures.items()}
    library = link_launchers([path for _, path in done.values()], folder)
    return Built({name: Module(text) for name, (text, _) in done.items()}, library)


@pytest.fixture(scope="session", autouse=True)
def _compile_early(request) -> None:
    """Let nvcc begin while tests run that do not wait for it, with what the others wait for."""
    if find_nvcc() is None:
        return
    wanted = {name for item in request.session.items for name in getattr(item, "fixturenames", ())}
    for fixture in ("units", "mutant_ptx"):
        if fixture in wanted:
            request.getfixturevalue(fixture)
