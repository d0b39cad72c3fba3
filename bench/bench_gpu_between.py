"""The CUDA ops between layers: microseconds and share of copying speed; results checked first.

    PYTHONPATH=. python3 bench/bench_gpu_between.py --out between.json

Shapes are those of ResNet-50, MobileNetV2, EfficientNet-B0, DenseNet-121 and ViT-B/16. A call is
replayed as a CUDA graph, with cold L2. Its first and last rows are compared with the reference.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from gpu_timing import copy_bandwidth, time_replay
from harness import show
from torch import Tensor

from fastinfer.measure import describe_machine
from fastinfer.ops.catalog import OPS

REFERENCES = {op.name: op.reference for op in OPS}
CHECKED_ROWS = 2  # at each end
PAIR = (0.7231, 117, 0.3517, 31, 101, 0, 255)
PRODUCT = (0.011, 117, 31, 101, 0, 255)
POOLED = (0.7, 117, 101, 0, 255)
THREE = ([3, 3], [2, 2], [1, 1], [1, 1], False)


@dataclass(frozen=True)
class Row:
    """A call of an op, and torch's own in float16 where there is one."""

    op: str
    shape: str
    args: tuple[Any, ...]
    torch_call: Callable[[], Any] | None = None
    has_one_range: bool = False  # of all rows, which then cannot be checked apart


def codes(*shape: int) -> Tensor:
    """Return uint8 activations, images NHWC in memory."""
    x = torch.randint(0, 256, shape, device="cuda", dtype=torch.uint8)
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


def half(x: Tensor) -> Tensor:
    """Return random float16 of x's shape and memory."""
    return torch.randn(x.shape, device="cuda").to(x.device, torch.float16).contiguous(
        memory_format=torch.channels_last if x.dim() == 4 else torch.contiguous_format
    )  # fmt: skip


def pairs(batch: int) -> Iterator[Row]:
    for c, size in ((256, 56), (512, 28), (1024, 14), (2048, 7), (24, 56), (32, 28), (96, 14)):
        x, y = codes(batch, c, size, size), codes(batch, c, size, size)
        call = partial(torch.add, half(x), half(x))
        yield Row("int8_add", f"{c}x{size}", (x, y, *PAIR, None), call)
    table = codes(256)
    x = codes(batch, 96, 56, 56)
    yield Row("int8_add", "96x56 table", (x, codes(*x.shape), *PAIR, table))
    yield Row("int8_lookup", "96x56", (x, table), partial(F.silu, half(x)))
    for c, size in ((32, 112), (144, 56), (240, 28), (1152, 7)):
        x, gate = codes(batch, c, size, size), codes(batch, c, 1, 1)
        call = partial(torch.mul, half(x), half(gate))
        yield Row("int8_mul", f"{c}x{size} by [N, C, 1, 1]", (x, gate, *PRODUCT), call)
    x = codes(batch, 144, 56, 56)
    yield Row("int8_mul", "144x56", (x, codes(*x.shape), *PRODUCT))


def moves(batch: int) -> Iterator[Row]:
    for widths, size in (((64, 32), 56), ((256, *(32,) * 23), 14), ((58, 58), 28)):
        xs = [codes(batch, c, size, size) for c in widths]
        count, call = len(xs), partial(torch.cat, [half(x) for x in xs], 1)
        maps = ([0.631] * count, [17] * count, 101)
        yield Row("int8_cat", f"{count} parts, {sum(widths)}x{size}", (xs, 1, *maps), call)
    x = codes(batch, 256, 28, 28)
    for bilinear in (True, False):
        mode = "bilinear" if bilinear else "nearest"
        call = partial(F.interpolate, half(x), scale_factor=2, mode=mode)
        args = (x, None, [56, 56], [], bilinear, False)
        yield Row("int8_upsample2d", f"256x28 to 56 {mode}", args, call)
    for c, size in ((64, 112), (1280, 7)):
        x = codes(batch, c, size, size)
        yield Row("dequantize", f"{c}x{size}", (x, 0.0173, 101))


def firsts(batch: int) -> Iterator[Row]:
    images = torch.randn(batch, 3, 224, 224, device="cuda")
    for dtype in (torch.float32, torch.float16):
        x = images.to(dtype)
        yield Row("quantize", f"3x224 {dtype} to NHWC", (x, 0.02, 128, True))
    x = codes(batch, 3, 224, 224)
    for n, kernel, stride in ((64, 7, 2), (32, 3, 2), (96, 4, 4)):
        weight = torch.randint(-127, 128, (n, 3, kernel, kernel), device="cuda", dtype=torch.int8)
        padding = kernel // 2 if kernel % 2 else 0
        zeros, inf = torch.zeros(n, device="cuda", dtype=torch.int32), float("inf")
        packed = torch.ops.fastinfer.int8_prepack(
            "conv2d", weight, zeros, torch.rand(n, device="cuda") * 1e-3, None, None, None, 1, 114,
            117, 0, 255, -inf, inf, False,
        )  # fmt: skip
        geometry = ([kernel] * 2, [stride] * 2, [padding] * 2, [1, 1])
        own = partial(F.conv2d, half(x), half(weight), None, stride, padding)
        yield Row("int8_conv2d", f"3x224 -> {n} {kernel}x{kernel}/{stride}",
                  (x, packed, None, n, *geometry, 1, False), own)  # fmt: skip


def pools(batch: int) -> Iterator[Row]:
    x = codes(batch, 64, 112, 112)
    yield Row(
        "int8_max_pool2d", "64x112 3x3/2", (x, *THREE), partial(F.max_pool2d, half(x), 3, 2, 1)
    )
    x = codes(batch, 128, 56, 56)
    args = (x, [2, 2], [2, 2], [0, 0], False, True, *POOLED)
    yield Row("int8_avg_pool2d", "128x56 2x2/2", args, partial(F.avg_pool2d, half(x), 2, 2))
    for c, size in ((2048, 7), (1280, 7), (32, 112), (144, 56), (240, 28), (672, 14)):
        x = codes(batch, c, size, size)
        call = partial(F.adaptive_avg_pool2d, half(x), 1)
        yield Row("int8_adaptive_avg_pool2d", f"{c}x{size}", (x, [1, 1], *POOLED), call)


def rows(batch: int) -> Iterator[Row]:
    for n, c in ((197 * batch, 768), (4096, 4096)):
        x = torch.randn(n, c, device="cuda")
        for per_token in (True, False):
            kind = "a row" if per_token else "a tensor"
            yield Row("quantize_dynamic", f"{n}x{c} {kind}", (x, per_token), None, not per_token)
    weight = torch.randn(2, 768, device="cuda")
    x = torch.randn(197 * batch, 768, device="cuda")
    own = partial(F.layer_norm, half(x), (768,), *weight.half())
    yield Row("float_layer_norm", f"{197 * batch}x768", (x, *weight, 1e-6, 1), own)
    for n, c in ((12 * 197 * batch, 197), (12 * 128 * batch, 128), (4096, 1000)):
        x = torch.randn(n, c, device="cuda")
        yield Row("float_softmax", f"{n}x{c}", (x, 1), partial(torch.softmax, half(x), 1))


def packed_dynamic(n: int, k: int) -> Tensor:
    """Return a random linear layer's weight for float rows."""
    weight = torch.randint(-127, 128, (n, k), device="cuda", dtype=torch.int8)
    zeros = torch.zeros(n, device="cuda", dtype=torch.int32)
    inf = float("inf")
    return torch.ops.fastinfer.int8_prepack(
        "linear", weight, zeros, torch.rand(n, device="cuda") * 0.01, None, None,
        torch.randn(n, device="cuda"), 1, 0, 0, 0, 255, -inf, inf, True,
    )  # fmt: skip


def products(batch: int) -> Iterator[Row]:
    for m, n, k in ((197 * batch, 3072, 768), (197 * batch, 768, 3072), (1, 4096, 4096)):
        x, packed = torch.randn(m, k, device="cuda"), packed_dynamic(n, k)
        own = partial(F.linear, half(x), torch.randn(n, k, device="cuda").half())
        yield Row("int8_linear_dynamic", f"{m}x{n}x{k} a row", (x, packed, n, True), own)


def parts(args: tuple[Any, ...], where: slice) -> tuple[Any, ...]:
    """Return arguments for some rows of the batch, on the CPU."""
    first = args[0][0] if isinstance(args[0], list) else args[0]
    rows = first.shape[0]

    def part(value: Any) -> Any:
        if isinstance(value, list):
            return [part(entry) for entry in value]
        if not isinstance(value, Tensor):
            return value
        return (value[where] if value.dim() > 1 and value.shape[0] == rows else value).cpu()

    return tuple(part(value) for value in args)


def listed(value: Any) -> list[Tensor]:
    """Return the tensors of arguments or results."""
    if isinstance(value, (list, tuple)):
        return [t for entry in value for t in listed(entry)]
    return [value] if isinstance(value, Tensor) else []


def require_equal(row: Row, result: Any) -> None:
    """Raise unless the first and the last rows are the reference's, or all of one range."""
    ends = (slice(0, CHECKED_ROWS), slice(-CHECKED_ROWS, None))
    for where in (slice(None),) if row.has_one_range else ends:
        want = listed(REFERENCES[row.op](*parts(row.args, where)))
        for got, reference in zip(listed(result), want, strict=True):
            if not torch.equal((got[where] if got.dim() else got).cpu(), reference):
                raise AssertionError(f"{row.op} {row.shape}: another result than the reference's")


def measured(row: Row, copy_gbs: float) -> dict[str, Any]:
    """Return the figures of one call."""
    call = partial(getattr(torch.ops.fastinfer, row.op), *row.args)
    result = call()
    require_equal(row, result)
    timing = time_replay(call)
    moved = sum(t.numel() * t.element_size() for t in [*listed(row.args), *listed(result)])
    gbs = 1e-3 * moved / timing.median
    torch_us = time_replay(row.torch_call).median if row.torch_call else None
    return {
        "op": row.op,
        "shape": row.shape,
        "us": timing.median,
        "p20": timing.p20,
        "p80": timing.p80,
        "GB/s": gbs,
        "copy %": 100 * gbs / copy_gbs,
        "fp16 us": torch_us,
        "vs fp16": torch_us / timing.median if torch_us else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--out", type=Path, required=True, help="JSON")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    copy_gbs = copy_bandwidth()
    figures: list[dict[str, Any]] = []
    failed: list[str] = []
    for made in (firsts, pairs, moves, pools, rows, products):
        for row in made(options.batch):
            try:
                figures.append(measured(row, copy_gbs))
            except (AssertionError, RuntimeError) as error:  # the others are worth their time
                failed.append(f"{row.op} {row.shape}: {str(error)[:300]}")
    shown = [{k: v for k, v in row.items() if k not in ("p20", "p80")} for row in figures]
    show(f"ops between layers, batch {options.batch}, copying {copy_gbs:.0f} GB/s", shown)
    found = {
        "machine": describe_machine(cuda=torch.version.cuda),
        "copy_gbs": copy_gbs,
        "batch": options.batch,
        "rows": figures,
        "failed": failed,
    }
    options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if failed:
        raise SystemExit("\n".join(failed))


if __name__ == "__main__":
    main()
