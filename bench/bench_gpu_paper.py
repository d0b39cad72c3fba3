"""What the GPU ops must move and multiply, and the least time that takes: make bench-gpu-paper.

Needs no GPU. A bound is the larger of two times: all bytes once over the memory's bandwidth, all
multiply-adds over the tensor cores' (or dp4a's) rate, both as data sheets say. No speed is claimed:
the last columns are what bench_gpu.py measured on a GPU, where results/ has it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import RESULTS, read_shapes, show, write_json

from fastinfer import runtime


@dataclass(frozen=True)
class Gpu:
    """Data-sheet rates: bytes/s, int8 multiply-adds/s of tensor cores and of dp4a."""

    name: str
    capability: int
    multiprocessors: int
    bandwidth: float
    tensor: float
    dp4a: float


#: dp4a: 64 lanes of 4 multiply-adds a cycle and multiprocessor. Source: data sheets, SXM boards.
GPUS = {
    "h100": Gpu("h100", 90, 132, 3.35e12, 0.9895e15, 132 * 64 * 4 * 1.98e9),
    "a100": Gpu("a100", 80, 108, 2.039e12, 0.312e15, 108 * 64 * 4 * 1.41e9),
}


@dataclass(frozen=True)
class Work:
    """One call: bytes that are read and written once, multiply-adds, and who does these.

    replaces: kernels of eager torch that do the same in floats and codes, one after the other.
    """

    op: str
    shape: str
    moved: int
    multiply_adds: int = 0
    unit: str = "tensor"
    replaces: int = 1
    product: tuple[int, int, int, str] | None = None


def linears() -> Iterator[Work]:
    """Yield matrix products; bias, scale, activation and rounding are in the epilogue."""
    for row in read_shapes("gpu_gemm"):
        m, n, k = row["m"], row["n"], row["k"]
        moved = m * k + n * k + m * n + 8 * n
        yield Work("int8_linear", f"{m}x{n}x{k}", moved, m * n * k, "tensor", 5,
                   (m, n, k, "matrix"))  # fmt: skip


def convolutions(batch: int) -> Iterator[Work]:
    """Yield ResNet-50's convolutions."""
    for row in read_shapes("resnet50"):
        c, size, n, taps = row["channels"], row["size"], row["out_channels"], row["kernel"] ** 2
        out = (size + 2 * row["padding"] - row["kernel"]) // row["stride"] + 1
        m, k = batch * out * out, taps * c
        moved = batch * c * size * size + n * k + m * n + 8 * n
        plain = row["kernel"] == row["stride"] == 1
        source = "narrow" if c % 16 else "matrix" if plain else "pixels"
        name = f"{batch}x{c}x{size} -> {n} {row['kernel']}x{row['kernel']}/{row['stride']}"
        yield Work("int8_conv2d", name, moved, m * n * k, "tensor", 4, (m, n, k, source))


def depthwise(batch: int) -> Iterator[Work]:
    """Yield MobileNetV2's and EfficientNet-B0's depthwise convolutions, which dp4a does."""
    for shapes in ("mobilenet_v2_depthwise", "efficientnet_b0_depthwise"):
        for row in read_shapes(shapes):
            c, size, taps = row["channels"], row["size"], row["kernel"] ** 2
            out = (size + 2 * row["padding"] - row["kernel"]) // row["stride"] + 1
            moved = batch * c * (size * size + out * out) + taps * c + 8 * c
            name = f"{batch}x{c}x{size} {row['kernel']}x{row['kernel']}/{row['stride']}"
            work = batch * out * out * c * taps
            yield Work("int8_depthwise_conv2d", name, moved, work, "dp4a", 4)


def rows_of_values() -> Iterator[Work]:
    """Yield the Triton ops; sizes in bytes of float16 in, and of float16 or codes out."""
    for m, n in ((4096, 4096), (32 * 197, 768)):
        size, shape = m * n, f"{m}x{n}"
        for codes in ("uint8", "int8"):
            yield Work(f"quantize_rows {codes}", shape, 3 * size + 5 * m, replaces=6)
        for norm in ("layer_norm", "rms_norm"):
            yield Work(norm, shape, 4 * size)
            yield Work(f"{norm} int8", shape, 3 * size + 5 * m, replaces=7)
    yield Work("swiglu", "4096x11008", 6 * 4096 * 11008, replaces=2)
    yield Work("swiglu int8", "4096x11008", 5 * 4096 * 11008 + 5 * 4096, replaces=8)
    yield Work("geglu", "6304x3072", 6 * 6304 * 3072, replaces=2)
    yield Work("bias_gelu_residual", "6304x3072", 6 * 6304 * 3072, replaces=3)
    for m, n in ((32 * 12 * 197, 197), (49152, 1024)):
        yield Work("softmax", f"{m}x{n}", 4 * m * n)
    yield Work("rotary", "4096x32x128", 4 * 4096 * 32 * 128 + 4 * 4096 * 64, replaces=6)
    for m in (1, 16, 64):
        n = k = 4096
        rest = 2 * m * (n + k)
        yield Work("weight_only_linear", f"{m}x{n}x{k}", n * k + rest, replaces=2)
        yield Work("int4_linear", f"{m}x{n}x{k}", n * k // 2 + n * k // 32 + rest, replaces=3)


def tile_of(work: Work, gpu: Gpu) -> dict[str, Any]:
    """Return the kernel and tile that a product takes, and how full its last round over the GPU is.

    Nothing where the CUDA library is not built.
    """
    if work.product is None or runtime._C_cuda is None:
        return {"tile": None, "rounds": None}
    m, n, k, source = work.product
    config = runtime.require_cuda_kernels().choose_config(
        m, n, k, 1, source, gpu.capability, gpu.multiprocessors
    )
    tiles = -(-m // config["block_m"]) * -(-n // config["block_n"])
    return {
        "tile": "{kernel} {block_m}x{block_n} c{cluster}".format(**config),
        "rounds": round(tiles / gpu.multiprocessors, 2),
    }


def measured_us(gpu: Gpu) -> dict[tuple[str, str], float]:
    """Return what was measured, by op and shape; {} where it was not."""
    found: dict[tuple[str, str], float] = {}
    ops = {"linear": "int8_linear", "conv": "int8_conv2d", "depthwise": "int8_depthwise_conv2d"}
    for path in (RESULTS / f"{name}_{gpu.name}.json" for name in ("gpu_bench", "gpu_products")):
        if not path.exists():
            continue
        data = json.loads(path.read_text(encoding="utf-8"))
        for section, op in ops.items():
            found |= {(op, row["shape"]): row["us"] for row in data.get(section, ())}
    path = RESULTS / f"triton_bench_{gpu.name}.json"
    if path.exists():
        data = json.loads(path.read_text(encoding="utf-8"))
        for section in ("rows", "weight_only"):
            found |= {(row["op"], row["shape"]): row["us"] for row in data.get(section, ())}
    return found


def bound(work: Work, gpu: Gpu, measured: dict[tuple[str, str], float]) -> dict[str, Any]:
    """Return the line of a call: what it must do, and the least microseconds for it."""
    moving = 1e6 * work.moved / gpu.bandwidth
    rate = gpu.tensor if work.unit == "tensor" else gpu.dp4a
    multiplying = 1e6 * work.multiply_adds / rate
    least = max(moving, multiplying)
    us = measured.get((work.op, work.shape))
    return {
        "op": work.op,
        "shape": work.shape,
        "MB": work.moved / 1e6,
        "G multiply-adds": work.multiply_adds / 1e9,
        "a byte": work.multiply_adds / work.moved,
        "bound by": "memory" if moving >= multiplying else work.unit,
        "least us": least,
        **tile_of(work, gpu),
        "launches saved": work.replaces - 1,
        "measured us": us,
        "of the bound %": 100 * least / us if us else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gpu", choices=tuple(GPUS), nargs="+", default=list(GPUS))
    parser.add_argument("--batch", type=int, default=32, help="of convolutions")
    parser.add_argument("--out", type=Path, help="JSON")
    options = parser.parse_args()
    works = [*linears(), *convolutions(options.batch), *depthwise(options.batch), *rows_of_values()]
    works = list(dict.fromkeys(works))  # two networks share some shapes
    found = {}
    for name in options.gpu:
        measured = measured_us(GPUS[name])
        found[name] = [bound(work, GPUS[name], measured) for work in works]
        show(f"{name}: bytes, multiply-adds and the least time", found[name])
    write_json(options.out, **found)


if __name__ == "__main__":
    main()
