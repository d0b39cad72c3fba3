"""Every CUDA kernel, run from its PTX on small ragged shapes, equals its op's reference."""

from __future__ import annotations

import struct

import pytest
from host.build import CSRC, UNITS, compile_ptx
from interpreter import Counters, Fault, Line, Module, Traffic
from interpreter.faults import TRAP
from ptx_cases import F32, MMA, U8, WGMMA, Depthwise, Product, depthwise
from ptx_cases_between import BETWEEN_TEMPLATES
from ptx_cases_first import FIRST_TEMPLATES
from ptx_cases_rows import ROW_TEMPLATES
from ptx_sparse_cases import GATHER, LAUNCHES, PATCH, SPARSE, SPARSE_MMA

from fastinfer import runtime
from fastinfer.testing.cases import Conv

#: The kernels, as their mangled names hold them; one that is a template stands for all of its own.
TEMPLATES = (
    "17quantize_in_order",
    "15quantize_planes",
    "19quantize_few_planes",
    "13int8_gemm_mma",
    *(f"20int8_depthwise_stripILi{kernel}ELi{stride}E" for kernel in (3, 5) for stride in (1, 2)),
    "18int8_depthwise_any",
    "15int8_gemm_wgmma",
    *BETWEEN_TEMPLATES,
    *FIRST_TEMPLATES,
    *ROW_TEMPLATES,
    "17int8_sparse_wgmma",
    "15int8_sparse_mma",
    "17int8_gather_wgmma",
    "16int8_patch_wgmma",
)
LEAST_COVERAGE = 0.95
#: Eight neighbouring threads fill all banks at once; where some of a warp have no padding, a
#: request as counted here is of more rows than four, and two of them may meet.
PADDING_PASSES = 1.25
#: Four lanes load different words of 16 bytes as far as the kept inputs allow.
GATHER_PASSES = 1.2


@pytest.mark.parametrize("launch", LAUNCHES, ids=str)
def test_equals_reference(launch, built):
    assert built.check(launch).issued.any()


def test_every_kernel_runs(built):
    ran = {built.check(launch).kernel.name for launch in LAUNCHES}
    assert ran == {name for module in built.modules.values() for name in module.names}


def test_every_unit_with_kernels_is_here(tmp_path, built):
    """A kernel in a unit that UNITS leaves out would never run."""
    others = [path for path in CSRC.glob("cuda/*.cu") if path.stem not in UNITS]
    for path in others:
        assert not Module(compile_ptx(path, "80", tmp_path)).names, f"{path.name}: add it to UNITS"
    assert all(module.names for module in built.modules.values())


def test_lines_of_every_kernel_are_covered(built):
    for name in {name for module in built.modules.values() for name in module.names}:
        assert sum(template in name for template in TEMPLATES) == 1, f"{name}: not in TEMPLATES"


def test_empty_batches_are_not_launched(built):
    """CUDA refuses an empty grid, so ops have to return before."""
    for output, strips in ((U8, (3, 1)), (F32, None)):
        launch = Depthwise(depthwise(Conv(0, 8, (4, 4), 8, groups=8), output), strips)
        with pytest.raises(AssertionError, match="launch_depthwise: CUDA error 9"):
            launch.prepare(built.launchers)


def test_tiles_are_those_that_are_built():
    # With nvcc, but FASTINFER_CUDA=0 or a torch without CUDA, kernels run here and none is built.
    if runtime.info()["cuda_kernels"] != "built":
        pytest.skip("known_configs: the CUDA kernels are not built")
    known = {tuple(c.values()) for c in runtime.require_cuda_kernels().known_configs()}
    assert known == {(t.kernel, t.block_m, t.block_n, t.cluster) for t in (*MMA, *WGMMA)}
    kernels = runtime.require_cuda_kernels()
    gather = {tuple(c.values()) for c in kernels.known_gather_configs()}
    assert gather == {(t.kernel, t.block_m, t.block_n, t.cluster) for t in (*GATHER, *PATCH)}
    sparse = {tuple(c.values()) for c in kernels.known_sparse_configs()}
    assert sparse == {(t.kernel, t.block_m, t.block_n, t.cluster) for t in (*SPARSE, *SPARSE_MMA)}


def lines_of_kernels(lines: set[Line]) -> set[Line]:
    """Return the lines of csrc/cuda, without those of CUDA's own headers."""
    own = {path.name for path in CSRC.glob("cuda/*.cuh")}
    return {line for line in lines if line.file in own}


@pytest.mark.parametrize("template", TEMPLATES)
def test_line_coverage(template, built):
    """The launches here execute the lines that a kernel's instantiations are made of."""
    names = [n for module in built.modules.values() for n in module.names if template in n]
    lines = lines_of_kernels(set().union(*(Counters(built.kernel(n)).lines() for n in names)))
    counters = (built.check(launch) for launch in LAUNCHES)
    ran = (c.executed() for c in counters if template in c.kernel.name)
    missed = lines - set().union(*ran)
    share = 1 - len(missed) / len(lines)
    print(f"{template}: {len(lines) - len(missed)} of {len(lines)} lines, {share:.1%}")
    assert share >= LEAST_COVERAGE, sorted(map(str, missed))


def shared_traffic(built, kernel: str, *opcodes: str) -> dict[str, list[tuple[Line, Traffic]]]:
    """Return by opcode the line and traffic of each instruction in the launches of a kernel."""
    found: dict[str, list[tuple[Line, Traffic]]] = {opcode: [] for opcode in opcodes}
    for launch in LAUNCHES:
        if isinstance(launch, Product) and launch.tile.kernel == kernel:
            for instruction, traffic in built.check(launch).passes(*opcodes).items():
                found[instruction.opcode].append((instruction.lines[0], traffic))
    return found


def test_bank_conflicts_of_mma(built):
    """Every copy, store and ldmatrix takes one pass for what one pass can serve."""
    for opcode, found in shared_traffic(built, "mma", "cp", "st", "ldmatrix").items():
        assert found, opcode
        assert {traffic.per_request for _, traffic in found} == {1.0}, opcode


def test_bank_conflicts_of_wgmma(built):
    """Tensor cores read rows without conflicts; threads store nothing but padding."""
    traffic = shared_traffic(built, "wgmma", "wgmma", "st")
    assert traffic["wgmma"]
    assert {t.per_request for _, t in traffic["wgmma"]} == {1.0}
    assert {line.file for line, _ in traffic["st"]} == {"padding_fill.cuh"}
    assert max(t.per_request for _, t in traffic["st"]) <= PADDING_PASSES


def test_bank_conflicts_of_sparse_mma(built):
    """Copies and ldmatrix of the main loop take one pass; results may meet while they turn."""
    for opcode, found in shared_traffic(built, "sparse_mma", "cp", "ldmatrix").items():
        assert found, opcode
        assert {traffic.per_request for _, traffic in found} == {1.0}, opcode


def test_bank_conflicts_of_sparse(built):
    """Products, places, and turns of results: one pass for what one pass can serve."""
    traffic = shared_traffic(built, "sparse_wgmma", "wgmma", "ld", "st", "ldmatrix", "stmatrix")
    for opcode, found in traffic.items():
        assert found, opcode
        passes = {t.per_request for line, t in found if line.file != "padding_fill.cuh"}
        assert passes == {1.0}, opcode
    filled = [t for line, t in traffic["st"] if line.file == "padding_fill.cuh"]
    assert filled and max(t.per_request for t in filled) <= PADDING_PASSES


def test_bank_conflicts_of_gather(built):
    """Products: none. Bytes that lanes load: rows never meet, words of a row now and then."""
    traffic = shared_traffic(built, "gather_wgmma", "wgmma", "ld")
    assert {t.per_request for _, t in traffic["wgmma"]} == {1.0}
    taken = sum(t.taken for _, t in traffic["ld"])
    assert taken / sum(t.requests for _, t in traffic["ld"]) <= GATHER_PASSES


#: A kernel each.
FIRSTS = [tiles[0] for tiles in (MMA, WGMMA, SPARSE, SPARSE_MMA, GATHER, PATCH)]


@pytest.mark.parametrize("tile", FIRSTS, ids=str)
def test_a_weight_of_another_layer_stops_the_kernel(tile, built):
    launch = next(p for p in LAUNCHES if isinstance(p, Product) and p.tile == tile)
    run = launch.prepare(built.launchers)
    (packed,) = struct.unpack_from("<Q", run.launch.parameters, 8)
    channels_at = packed + 16  # the field n of the header
    run.memory.overwrite(channels_at, struct.pack("<i", 8))
    with pytest.raises(Fault) as found:
        run.check()
    assert found.value.kind == TRAP
