"""Times the Triton kernels at sensible tiles, from which the fixed lists of kernels/ are chosen.

    python3 bench/sweep_triton.py --out sweep.json

Every call is compiled ahead by as many processes as there are cores, then checked against the first
tile's result, captured and replayed with L2 flushed by writing and by reading (gpu_timing says what
each means). tests/kernels/test_choice.py holds choices to bench/results/triton_sweep_h100.json.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from gpu_timing import READ, WRITTEN, capture, copy_bandwidth, copy_us, time_call
from torch import Tensor

from fastinfer.measure import describe_machine
from fastinfer.testing.kernels_package import load_kernels

load_kernels()
from fastinfer.kernels import (  # noqa: E402
    bias_act_residual,
    fp8_linear,
    gated,
    int4_linear,
    layer_norm,
    quantize_rows,
    rms_norm,
    rotary,
    softmax,
    split_k,
    weight_only_linear,
)
from fastinfer.kernels.codes import Codes  # noqa: E402
from fastinfer.kernels.rows import RowConfig  # noqa: E402
from fastinfer.kernels.tiles import TileConfig  # noqa: E402

ROW_MODULES = (bias_act_residual, gated, layer_norm, quantize_rows, rms_norm, softmax)
PRODUCTS = (fp8_linear, int4_linear, weight_only_linear)
FLOAT8 = torch.float8_e4m3fn
SIGNED, UNSIGNED = Codes(signed=True), Codes()
SHORT = 32 * 197
Call = Callable[[], Any]


@dataclass(frozen=True)
class Job:
    """A call at one tile. make: device -> the call, on inputs of its own. patches: the tile."""

    op: str
    shape: str
    tile: str
    make: Callable[[str], Call]
    patches: tuple[tuple[Any, str, Any], ...]

    @property
    def inputs(self) -> tuple[str, str]:
        """Return what jobs share that have the same inputs."""
        return self.op, self.shape


def half(device: str, *shape: int) -> Tensor:
    if device == "cpu":  # only its kind counts there
        return torch.empty(shape, dtype=torch.float16)
    return torch.randn(shape, device=device, dtype=torch.float16)


def row_makers() -> Iterator[tuple[str, tuple[int, int], Any, Callable[[str], Call], str]]:
    """Yield op, shape, module, maker, and which tiles it has."""
    for m, n in ((SHORT, 768), (4096, 4096)):
        kind = f"whole {n}"
        for codes in (UNSIGNED, SIGNED):

            def quantize(device: str, m: int = m, n: int = n, codes: Codes = codes) -> Call:
                x = half(device, m, n)
                return lambda: quantize_rows.quantize_rows(x, codes)

            name = "int8" if codes.signed else "uint8"
            yield f"quantize_rows {name}", (m, n), quantize_rows, quantize, kind
        for codes in (None, SIGNED):

            def layer(device: str, m: int = m, n: int = n, codes: Codes | None = codes) -> Call:
                x, w, b = half(device, m, n), half(device, n), half(device, n)
                return lambda: layer_norm.layer_norm(x, w, b, 1e-5, codes)

            def rms(device: str, m: int = m, n: int = n, codes: Codes | None = codes) -> Call:
                x, w = half(device, m, n), half(device, n)
                return lambda: rms_norm.rms_norm(x, w, 1e-6, codes)

            suffix = "" if codes is None else " int8"
            yield f"layer_norm{suffix}", (m, n), layer_norm, layer, kind
            yield f"rms_norm{suffix}", (m, n), rms_norm, rms, kind
    for m, n in ((32 * 12 * 197, 197), (49152, 1024)):

        def soft(device: str, m: int = m, n: int = n) -> Call:
            x = half(device, m, n)
            return lambda: softmax.softmax(x)

        yield "softmax", (m, n), softmax, soft, f"whole {n}"
    for name, m, n, codes, act in (
        ("swiglu", 4096, 11008, None, "silu"),
        ("swiglu int8", 4096, 11008, SIGNED, "silu"),
        ("geglu", SHORT, 3072, None, "gelu_tanh"),
    ):

        def gate(
            device: str, m: int = m, n: int = n, codes: Codes | None = codes, act: str = act
        ) -> Call:
            g, u = half(device, m, n), half(device, m, n)
            return lambda: gated.gated(g, u, act, codes)

        yield name, (m, n), gated, gate, "values" if codes is None else f"whole {n}"

    def bias_gelu(device: str) -> Call:
        x, b, r = half(device, SHORT, 3072), half(device, 3072), half(device, SHORT, 3072)
        return lambda: bias_act_residual.bias_act_residual(x, b, r, "gelu")

    yield "bias_gelu_residual", (SHORT, 3072), bias_act_residual, bias_gelu, "values"


#: rows, warps of tiles of whole rows: by columns of the row.
WHOLE = {
    768: (1024, ((1, 1), (2, 2), (4, 4), (8, 8), (2, 1), (4, 2), (8, 4), (1, 2), (2, 4))),
    4096: (4096, ((1, 4), (1, 8), (1, 16), (2, 8), (2, 16))),
    197: (256, ((8, 4), (4, 4), (16, 4), (32, 4), (8, 8), (4, 2), (2, 1), (1, 1), (4, 1))),
    1024: (1024, ((1, 1), (1, 2), (1, 4), (2, 2), (4, 4), (2, 4), (4, 8))),
    11008: (16384, ((1, 16), (1, 32), (1, 8))),
}
#: columns, rows, warps of tiles of values.
VALUES = (
    (1024, 1, 4), (2048, 1, 4), (512, 1, 2), (1024, 2, 4), (2048, 1, 8), (4096, 1, 8), (512, 4, 4),
    (512, 2, 4), (1024, 1, 2),
)  # fmt: skip


def row_jobs() -> Iterator[Job]:
    for op, (m, n), module, make, kind in row_makers():
        if kind == "values":
            configs = [RowConfig(c, r, w) for c, r, w in VALUES]
        else:
            columns, sizes = WHOLE[int(kind.split()[1])]
            configs = [RowConfig(columns, *size) for size in sizes]
        for config in configs:
            tile = f"{config.rows}x{config.columns} warps {config.warps}"

            def choose(_op: str, _n: int, _of_row: bool, config: RowConfig = config) -> Any:
                return config

            name = "value_config" if hasattr(module, "value_config") else "row_config"
            yield Job(op, f"{m}x{n}", tile, make, ((module, name, choose),))

    def turn(device: str) -> Call:
        q, cos, sin = half(device, 4096, 32, 128), half(device, 4096, 64), half(device, 4096, 64)
        return lambda: rotary.rotary(q, cos, sin)

    for heads, warps in ((16, 4), (32, 8), (32, 4), (8, 4), (16, 8), (8, 2), (4, 1), (4, 2)):
        config = (heads, 64, warps)
        patches = ((rotary, "rotary_config", lambda _heads, _half, c=config: c),)
        yield Job("rotary", "4096x32x128", f"{heads} heads warps {warps}", turn, patches)


FLAT = ((64, 128, 4, 5), (64, 256, 4, 4), (128, 128, 4, 4), (128, 128, 8, 4), (64, 64, 4, 6),
        (64, 128, 4, 3))  # fmt: skip
HIGH = ((64, 128, 4, 4), (128, 128, 4, 3), (128, 128, 8, 4), (64, 64, 4, 5), (128, 64, 8, 5),
        (64, 128, 4, 3))  # fmt: skip
FLAT4 = ((64, 128, 4, 6), (64, 128, 4, 4), (128, 128, 4, 4), (128, 128, 8, 5), (64, 128, 4, 3))
HIGH4 = ((64, 128, 4, 4), (64, 128, 4, 3), (128, 128, 8, 4), (128, 128, 8, 3))


def product_jobs() -> Iterator[Job]:
    for n, k in ((4096, 4096), (11008, 4096)):
        for m in (1, 16, 64):

            def eight(device: str, m: int = m, n: int = n, k: int = k) -> Call:
                x = half(device, m, k)
                weight = torch.empty((n, k), dtype=torch.int8, device=device)
                if device != "cpu":
                    weight.random_(-127, 128)
                scale = torch.ones(n, device=device) * 1e-3
                return lambda: weight_only_linear.weight_only_linear(x, weight, scale)

            def four(device: str, m: int = m, n: int = n, k: int = k) -> Call:
                x = half(device, m, k)
                codes = torch.empty((n, k // 2), dtype=torch.uint8, device=device)
                if device != "cpu":
                    codes.random_(0, 256)
                scale = torch.ones(k // 128, n, device=device) * 1e-2
                weight = int4_linear.Int4Weight(codes, scale)
                return lambda: int4_linear.int4_linear(x, weight)

            rows = max(m, 16)
            for module, make, sizes, name in (
                (weight_only_linear, eight, FLAT if m <= 16 else HIGH, "weight_only_config"),
                (int4_linear, four, FLAT4 if m <= 16 else HIGH4, "int4_config"),
            ):
                op = module.__name__.rpartition(".")[2]
                for columns, depth, warps, stages in sizes:
                    config = TileConfig(rows, columns, depth, warps, stages)
                    for splits in (1, 2, 4, 8):
                        if splits * -(-n // columns) > 1100:
                            continue
                        part = k // splits
                        if part < depth:
                            continue
                        tile = f"{rows}x{columns}x{depth} warps {warps} stages {stages}"
                        yield Job(
                            op, f"{m}x{n}x{k}", f"{tile} splits {splits}", make,
                            ((module, name, lambda _m, c=config: c),
                             (module, "split_of_k", lambda *_, s=splits, p=part: (s, p))),
                        )  # fmt: skip


FP8 = (
    (64, 64, 128, 4, 5), (64, 128, 128, 4, 4), (128, 128, 128, 8, 4), (128, 128, 128, 8, 3),
    (128, 64, 128, 4, 4), (128, 128, 64, 8, 5), (64, 128, 256, 4, 3), (64, 64, 256, 4, 4),
)  # fmt: skip


def float8_jobs() -> Iterator[Job]:
    for m, n, k in ((64, 4096, 4096), (1024, 4096, 4096), (4096, 4096, 4096), (4096, 3072, 768)):

        def make(device: str, m: int = m, n: int = n, k: int = k) -> Call:
            x, weight = half(device, m, k).to(FLOAT8), half(device, n, k).to(FLOAT8)
            x_scale, scale = torch.ones(m, device=device), torch.ones(n, device=device)
            return lambda: fp8_linear.fp8_linear(x, weight, x_scale, scale)

        for sizes in FP8:
            config = TileConfig(*sizes)
            tile = f"{config.m}x{config.n}x{config.k} warps {config.warps} stages {config.stages}"
            patches = ((fp8_linear, "fp8_config", lambda _m, _n, c=config: c),)
            yield Job("fp8_linear", f"{m}x{n}x{k}", tile, make, patches)


def all_jobs() -> list[Job]:
    return [*row_jobs(), *product_jobs(), *float8_jobs()]


class Patched:
    """Attributes of modules, set while a block runs."""

    def __init__(self, patches: tuple[tuple[Any, str, Any], ...]) -> None:
        self.patches = patches

    def __enter__(self) -> None:
        self.old = [getattr(module, name) for module, name, _ in self.patches]
        for module, name, value in self.patches:
            setattr(module, name, value)

    def __exit__(self, *_: object) -> None:
        for (module, name, _), old in zip(self.patches, self.old, strict=True):
            setattr(module, name, old)


class Compiling:
    """Stands for a jit function: a launch only compiles."""

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        def compile_only(*arguments: Any, **options: Any) -> None:
            made = self.kernel.warmup(*arguments, grid=grid, **options)
            if hasattr(made, "_init_handles"):
                made._init_handles()  # the launcher's C code too

        return compile_only


def stand_ins() -> tuple[tuple[Any, str, Any], ...]:
    found = []
    for module in (*ROW_MODULES, *PRODUCTS, rotary, split_k):
        for name in dir(module):
            if name.endswith("_kernel"):
                found.append((module, name, Compiling(getattr(module, name))))
    return tuple(found)


def compile_part(arguments: tuple[int, int]) -> list[str]:
    """Compile every `count`-th job; return what went wrong."""
    index, count = arguments
    failed = []
    for job in all_jobs()[index::count]:
        try:
            with Patched((*job.patches, *stand_ins())):
                job.make("cpu")()
        except Exception as error:  # found again, and told, when it is run
            failed.append(f"{job.op} {job.shape} {job.tile}: {str(error)[:300]}")
    return failed


def compile_ahead(processes: int) -> list[str]:
    # Not forked: whether this process has touched the driver does not matter then.
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        found = pool.map(compile_part, [(i, processes) for i in range(processes)])
    return [line for lines in found for line in lines]


def parts(value: Any) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else [t for t in value if t is not None]


def measure(job: Job, call: Call, want: list[Tensor] | None) -> tuple[dict[str, Any], list[Tensor]]:
    """Return a job's figures, and its result."""
    with Patched(job.patches):
        got = [t.clone() for t in parts(call())]
        replay, _ = capture(call, warm_up=1)
    off = 0.0
    if want is not None:
        off = float((got[0].float() - want[0].float()).abs().max())
    times = {how: time_call(replay, 15, 2, how).median for how in (WRITTEN, READ)}
    return {"op": job.op, "shape": job.shape, "tile": job.tile, "off": off, **times}, got


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seconds", type=float, default=90, help="begin no call after these")
    options = parser.parse_args()
    began = time.monotonic()
    not_compiled = compile_ahead(options.processes)
    compiled = time.monotonic()
    torch.manual_seed(0)
    found: dict[str, Any] = {
        "machine": describe_machine(cuda=torch.version.cuda),
        "copy_gbs": copy_bandwidth(),
        "launch_us": {how: copy_us(32, how) for how in (WRITTEN, READ)},
        "not compiled": not_compiled,
        "compile_s": compiled - began,
        "copies": {},
        "jobs": [],
        "failed": [],
    }
    for count in (14_500_000, 19_400_000, 50_400_000, 59_600_000, 67_200_000, 116_200_000):
        found["copies"][count] = {how: copy_us(count, how) for how in (WRITTEN, READ)}

    inputs: tuple[str, str] | None = None
    call: Call = lambda: None  # noqa: E731
    want: list[Tensor] | None = None
    for job in all_jobs():
        if time.monotonic() - began > options.seconds:
            found["failed"].append(f"{job.op} {job.shape} {job.tile}: no time left")
            continue
        try:
            if job.inputs != inputs:
                inputs, call, want = job.inputs, job.make("cuda"), None
            figures, got = measure(job, call, want)
            want = got if want is None else want
            found["jobs"].append(figures)
        except Exception as error:
            found["failed"].append(f"{job.op} {job.shape} {job.tile}: {str(error)[:300]}")
    found["seconds"] = time.monotonic() - began
    options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for op, shape in dict.fromkeys((j["op"], j["shape"]) for j in found["jobs"]):
        mine = [j for j in found["jobs"] if (j["op"], j["shape"]) == (op, shape)]
        best = min(mine, key=lambda j: j[READ])
        print(f"{op} {shape}: {best[READ]:.1f} us ({best['tile']}), written {best[WRITTEN]:.1f}")
    print(f"{len(found['jobs'])} calls, {len(found['failed'])} failed, {found['seconds']:.0f} s")
    print("\n".join(found["failed"][:20]))


if __name__ == "__main__":
    main()
