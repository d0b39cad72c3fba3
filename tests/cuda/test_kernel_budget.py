"""What the compiler made of each CUDA kernel: registers, no stack, the tensor-core instruction."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

#: (object, kernel, how many instantiations, most registers, an instruction it must use).
#: wgmma with two consumers starts with 168 registers, which its groups then share out anew.
KERNELS = [
    ("int8_gemm_mma", "int8_gemm_mma", 6, 128, r"IMMA\.16832\.U8\.S8"),
    ("int8_gemm_wgmma", "int8_gemm_wgmma", 12, 248, r"IGMMA\.64x(64|128|256)x32\.U8\.S8"),
    ("int8_sparse_wgmma", "int8_sparse_wgmma", 10, 232, r"IGMMA\.SP\.64x(64|128|256)x64\.S8\.U8"),
    ("int8_sparse_mma", "int8_sparse_mma", 4, 128, r"IMMA\.SP\.16864\.S8\.U8"),
    ("int8_patch_wgmma", "int8_patch_wgmma", 6, 168, r"(?s)LDS\.U8.*IGMMA\.64x\d+x32\.U8\.S8"),
    ("int8_gather_wgmma", "int8_gather_wgmma", 16, 255, r"(?s)LDS\.U8.*IGMMA\.64x\d+x32\.U8\.S8"),
    ("int8_depthwise_launch", "int8_depthwise_strip", 4, 255, r"(?s)LDG\.E\.64.*IDP\.4A\.U8\.S8"),
    ("int8_depthwise_launch", "int8_depthwise_any", 1, 72, r"(?s)LDG\.E\.64.*IDP\.4A\.U8\.S8"),
    ("int8_first_conv_launch", "15int8_first_conv", 3, 168, r"(?s)IMMA\.16832\.U8\.S8"),
    ("float_rows_launch", "16float_layer_normILi4E", 1, 64, r"(?s)LDG\.E\.128.*STG\.E\.128"),
    ("float_rows_launch", "16float_layer_norm", 2, 64, r"SHFL"),
    ("float_rows_launch", "13float_softmaxILi4E", 1, 64, r"(?s)LDG\.E\.128.*STG\.E\.128"),
    ("float_rows_launch", "13float_softmax", 2, 64, r"SHFL"),
    ("quantize_rows_launch", "17quantize_each_row", 2, 48, r"LDG\.E\.128"),
    ("quantize_rows_launch", "11find_bounds", 1, 48, r"LDG\.E\.128"),
    ("quantize_rows_launch", "14quantize_split", 1, 48, r"LDG\.E\.128"),
    ("quantize_rows_launch", "15quantize_paddedILi4E", 1, 48, r"LDG\.E\.128"),
    ("quantize_rows_launch", "15quantize_padded", 2, 48, r"LDG\.E"),
    ("pointwise_launch", "9int8_pair", 6, 40, r"(?s)LDG\.E\.128.*STG\.E\.128"),
    ("pointwise_launch", "11int8_lookup", 1, 40, r"(?s)LDG\.E\.128.*STG\.E\.128"),
    ("pointwise_launch", "16dequantize_codes", 1, 32, r"STG\.E\.128"),
    ("pointwise_launch", "8int8_catILi16E", 1, 40, r"(?s)LDG\.E\.128.*STG\.E\.128"),
    ("pointwise_launch", "8int8_cat", 3, 40, r"LDG\.E"),
    ("pool_launch", "13int8_max_poolILi16E", 1, 40, r"(?s)LDG\.E\.128.*STG\.E\.128"),
    ("pool_launch", "13int8_max_pool", 3, 40, r"LDG\.E"),
    ("pool_launch", "12int8_averageILi16E", 1, 64, r"(?s)LDG\.E\.128.*STG\.E\.128"),
    ("pool_launch", "12int8_average", 3, 64, r"IDP\.4A"),
    ("pool_launch", "18int8_split_averageILi16E", 1, 64, r"(?s)LDG\.E\.128.*IDP\.4A.*BAR"),
    ("pool_launch", "18int8_split_average", 3, 64, r"(?s)IDP\.4A.*BAR"),
    ("pool_launch", "19int8_finish_average", 1, 40, r"LDG\.E"),
    ("upsample_launch", "13int8_upsampleILi16E", 2, 40, r"(?s)LDG\.E\.128.*STG\.E\.128"),
    ("upsample_launch", "13int8_upsample", 6, 40, r"LDG\.E"),
    ("quantize_launch", "quantize_in_orderILNS0_9FloatTypeE0E", 1, 40, r"LDG\.E\.128"),
    ("quantize_launch", "quantize_in_order", 3, 40, r"LDG\.E\.(64|128)"),
    ("quantize_launch", "quantize_planes", 3, 56, r"STG\.E\.128"),
    ("quantize_launch", "quantize_few_planesILNS0_9FloatTypeE0E", 3, 48, r"LDG\.E\.128"),
    ("quantize_launch", "quantize_few_planes", 9, 48, r"LDG\.E\.(64|128)"),
]
LOCAL_MEMORY = re.compile(r"\b(LDL|STL)\b")


def find_tool(name: str) -> str | None:
    """Return a binary utility: on the PATH, or the one that Triton's wheel brings."""
    found = shutil.which(name)
    spec = importlib.util.find_spec("triton")
    if found is None and spec is not None and spec.origin is not None:
        bundled = Path(spec.origin).parent / "backends" / "nvidia" / "bin" / name
        found = str(bundled) if bundled.exists() else None
    return found


def built_object(name: str) -> Path | None:
    found = sorted((ROOT / "build").glob(f"temp*/cuda/{name}.o"), key=lambda p: p.stat().st_mtime)
    return found[-1] if found else None


def dump(path: Path, *flags: str) -> str:
    command = [find_tool("cuobjdump"), *flags, str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@cache
def code(path: Path) -> dict[str, dict[str, str]]:
    """Return architecture -> mangled kernel -> instructions."""
    found: dict[str, dict[str, str]] = {}
    arch = ""
    for part in re.split(r"(?m)^\s*(?=arch = |Function : )", dump(path, "-sass")):
        if part.startswith("arch = "):
            arch = part.split()[2]
        elif part.startswith("Function : "):
            head, _, body = part.partition("\n")
            found.setdefault(arch, {})[head.split()[2]] = body
    return found


@cache
def resources(path: Path) -> list[tuple[str, int, int]]:
    """Return (mangled kernel, registers, bytes of stack) for each kernel and architecture."""
    pattern = r"Function (\S+):\s+REG:(\d+) STACK:(\d+)"
    return [(n, int(r), int(s)) for n, r, s in re.findall(pattern, dump(path, "-res-usage"))]


@pytest.fixture(params=KERNELS, ids=lambda k: k[1])
def kernel(request):
    path = built_object(request.param[0])
    if path is None or find_tool("cuobjdump") is None:
        missing = "object file" if path is None else "cuobjdump"
        pytest.skip(f"{request.param[1]}: {missing} not found")
    return path, *request.param[1:]


def test_registers_and_stack(kernel):
    path, name, count, most, _ = kernel
    used = [u for u in resources(path) if name in u[0]]
    assert used and len(used) % count == 0, [u[0] for u in used]
    over = [u for u in used if u[1] > most or u[2] != 0]
    assert not over


def test_instructions(kernel):
    path, name, count, _, wanted = kernel
    for arch, bodies in code(path).items():
        mine = {n: body for n, body in bodies.items() if name in n}
        assert len(mine) == count, (arch, sorted(mine))
        for mangled, body in mine.items():
            assert re.search(wanted, body), (arch, mangled, wanted)
            assert not LOCAL_MEMORY.search(body), (arch, mangled)
