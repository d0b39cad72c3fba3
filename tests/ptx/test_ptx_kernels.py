"""Every CUDA kernel, run from its PTX on small ragged shapes, equals its op's reference."""

from __future__ import annotations

import pytest
from interpreter import Counters
from ptx_cases import LAUNCHES, MMA, WGMMA

from fastinfer import runtime


@pytest.mark.parametrize("launch", LAUNCHES, ids=str)
def test_equals_reference(launch, built):
    assert built.check(launch).issued.any()


def test_every_kernel_runs(built):
    ran = {built.check(launch).kernel.name for launch in LAUNCHES}
    assert ran == {name for module in built.modules.values() for name in module.names}


def test_tiles_are_those_that_are_built():
    if runtime.info()["cuda_kernels"] != "built":
        pytest.skip("known_configs: the CUDA kernels are not built")
    known = {tuple(c.values()) for c in runtime.require_cuda_kernels().known_configs()}
    assert known == {(t.kernel, t.block_m, t.block_n, t.cluster) for t in (*MMA, *WGMMA)}


#: Sources whose lines are counted: those that kernels are made of.
def _own(lines):
    return {line for line in lines if line.file.endswith(".cuh")}


#: Lines that no launch here can reach, and why. Any other must be executed.
UNREACHED: dict[str, str] = {}


def test_line_coverage(built, record_property):
    """At least 95 % of the kernels' source lines are executed."""
    lines = set().union(
        *(Counters(m.kernel(n)).lines() for m in built.modules.values() for n in m.names)
    )
    executed = set().union(*(built.check(launch).executed() for launch in LAUNCHES))
    lines, executed = _own(lines), _own(executed)
    missed = sorted(map(str, lines - executed))
    share = len(executed) / len(lines)
    print(f"{len(executed)} of {len(lines)} lines, {share:.1%}; not: {missed}")
    assert share >= 0.95, missed
