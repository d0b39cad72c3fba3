"""Every CUDA kernel, run from its PTX on small ragged shapes, equals its op's reference."""

from __future__ import annotations

import pytest
from host.runs import check_packing, source_of
from ptx_cases import LAUNCHES, MMA, WGMMA, Product


@pytest.mark.parametrize("launch", LAUNCHES, ids=str)
def test_equals_reference(launch, built):
    assert built.check(launch).issued.any()


@pytest.mark.parametrize("launch", [p for p in LAUNCHES if isinstance(p, Product)], ids=str)
def test_packing_and_source(launch, built):
    check_packing(launch.case)
    source = "windows" if (launch.tile in MMA and launch.source == "pixels") else launch.source
    assert source_of(launch.prepare(built.launchers)) == source


def test_every_kernel_runs(built):
    ran = {built.check(launch).kernel.name for launch in LAUNCHES}
    assert ran == {name for module in built.modules.values() for name in module.names}


def test_tiles_are_those_that_are_built():
    runtime = pytest.importorskip("fastinfer.runtime")
    if runtime.info()["cuda_kernels"] is None:
        pytest.skip("known_configs: the CUDA kernels are not built")
    known = {tuple(c.values()) for c in runtime.require_cuda_kernels().known_configs()}
    assert known == {(t.kernel, t.block_m, t.block_n, t.cluster) for t in (*MMA, *WGMMA)}
