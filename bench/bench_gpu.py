"""The CUDA ops against cuBLASLt int8, cuBLAS bf16, cuDNN fp16 and bf16; results checked first."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from gpu_timing import copy_bandwidth, int8_peak, time_call
from harness import read_shapes, show
from torch import Tensor

from fastinfer import runtime
from fastinfer.measure import describe_machine
from fastinfer.ops.int8_conv2d import int8_conv2d_ref, int8_depthwise_conv2d_ref
from fastinfer.ops.int8_linear import int8_linear_ref

INFINITY = float("inf")
SWEEP_RUNS = 7
SUITES = ("linear", "conv", "depthwise", "quantize")
DEPTHWISE_SHAPES = ("mobilenet_v2_depthwise", "efficientnet_b0_depthwise")


def packed_weight(op: str, weight: Tensor, x_zero_point: int = 128, groups: int = 1) -> Tensor:
    """Return a random layer's weight, packed on the GPU; results spread over most codes."""
    n, k = weight.shape[0], weight[0].numel()
    bias = torch.randint(-5000, 5000, (n,), device="cuda", dtype=torch.int32)
    multiplier = (0.5 + torch.rand(n, device="cuda")) * 64 / (74 * 37 * k**0.5)
    return torch.ops.fastinfer.int8_prepack(
        op, weight, bias, multiplier, None, None, None, groups, x_zero_point, 117, 0, 255,
        -INFINITY, INFINITY, False,
    )  # fmt: skip


def random_codes(*shape: int) -> Tensor:
    """Return uint8 activations on the GPU."""
    return torch.randint(0, 256, shape, device="cuda", dtype=torch.uint8)


def random_weights(*shape: int) -> Tensor:
    """Return int8 weights on the GPU."""
    return torch.randint(-127, 128, shape, device="cuda", dtype=torch.int8)


def require_equal(name: str, value: Tensor, reference: Tensor) -> None:
    """Raise unless a result is the reference's."""
    if not torch.equal(value, reference):
        wrong = int((value != reference).sum())
        raise AssertionError(f"{name}: {wrong} of {value.numel()} outputs differ")


@contextmanager
def forced(config: dict[str, Any]) -> Iterator[None]:
    """Use one kernel and tile inside the block."""
    kernels = runtime.require_cuda_kernels()
    kernels.force_config(**config)
    try:
        yield
    finally:
        kernels.force_config("")


def config_name(config: dict[str, Any]) -> str:
    return "{kernel} {block_m}x{block_n} c{cluster}".format(**config)


def sweep(name: str, call: Callable[[], Tensor], want: Tensor) -> dict[str, float]:
    """Return microseconds of each kernel and tile, each checked."""
    found = {}
    for config in runtime.require_cuda_kernels().known_configs():
        with forced(config):
            require_equal(f"{name} {config_name(config)}", call(), want)
            found[config_name(config)] = time_call(call, SWEEP_RUNS).median
    return found


def chosen(m: int, n: int, k: int, source: str) -> str:
    """Return the config that the op takes by itself."""
    properties = torch.cuda.get_device_properties(0)
    return config_name(
        runtime.require_cuda_kernels().choose_config(
            m, n, k, 1, source, properties.major * 10 + properties.minor,
            properties.multi_processor_count,
        )
    )  # fmt: skip


def figures(us: float, multiply_adds: int, moved: int, limits: dict[str, Any]) -> dict[str, Any]:
    """Return rates of a call, and how near they are to what the device does at best."""
    tops, gbs = 2e-6 * multiply_adds / us, 1e-3 * moved / us
    peak = limits["int8_tops"]
    return {
        "TOPS": tops,
        "peak %": 100 * tops / peak if peak else None,
        "GB/s": gbs,
        "copy %": 100 * gbs / limits["copy_gbs"],
    }


def int_mm(x: Tensor, weight: Tensor) -> Callable[[], Tensor] | None:
    """Return cuBLASLt's int8 product of int8 rows, which answers in int32; None where it cannot."""
    if x.shape[0] <= 16 or weight.shape[0] % 8 or weight.shape[1] % 8:
        return None
    signed, transposed = x.view(torch.int8), weight.t()
    return lambda: torch._int_mm(signed, transposed)


def linear(row: dict[str, Any], limits: dict[str, Any], with_sweep: bool) -> dict[str, Any]:
    """Return the figures of one matrix product."""
    m, n, k = row["m"], row["n"], row["k"]
    name = f"{m}x{n}x{k}"
    x, weight = random_codes(m, k), random_weights(n, k)
    packed = packed_weight("linear", weight)

    def ours() -> Tensor:
        return torch.ops.fastinfer.int8_linear(x, packed, None, n, False)

    want = int8_linear_ref(x, packed, None, n, False)
    require_equal(name, ours(), want)
    timing = time_call(ours)
    theirs = int_mm(x, weight)
    int8_us = time_call(theirs).median if theirs else None
    a, b = torch.randn(m, k, device="cuda").bfloat16(), torch.randn(n, k, device="cuda").bfloat16()
    bf16_us = time_call(lambda: F.linear(a, b)).median
    return {
        "shape": name,
        "config": chosen(m, n, k, "matrix"),
        "us": timing.median,
        "p20": timing.p20,
        "p80": timing.p80,
        **figures(timing.median, m * n * k, m * k + n * k + m * n, limits),
        "_int_mm us": int8_us,
        "vs _int_mm": int8_us / timing.median if int8_us else None,
        "bf16 us": bf16_us,
        "vs bf16": bf16_us / timing.median,
        "sweep": sweep(name, ours, want) if with_sweep else {},
    }


def conv_source(row: dict[str, Any]) -> str:
    """Return how the rows of A are read, as csrc/cuda/gemm_config.cpp says for such a layer."""
    if row["channels"] % 16:
        return "narrow"
    if row["kernel"] == row["stride"] == 1 and row["padding"] == 0:
        return "matrix"
    return "windows" if row["channels"] % 32 else "pixels"


def cudnn_us(x: Tensor, weight: Tensor, dtype: torch.dtype, *geometry: Any) -> float:
    """Return microseconds of cuDNN's convolution on channels_last tensors."""
    a, b = (
        torch.randn(t.shape, device="cuda").to(dtype, memory_format=torch.channels_last)
        for t in (x, weight)
    )
    return time_call(lambda: F.conv2d(a, b, None, *geometry)).median


def conv(
    row: dict[str, Any], batch: int, limits: dict[str, Any], with_sweep: bool
) -> dict[str, Any]:
    """Return the figures of one convolution.

    The input's zero point is 0, as behind a ReLU, but for an image; where there is padding, the
    time with another zero point is shown too.
    """
    c, size, out, kernel = row["channels"], row["size"], row["out_channels"], row["kernel"]
    stride, padding = [row["stride"]] * 2, [row["padding"]] * 2
    name = f"{batch}x{c}x{size} -> {out} {kernel}x{kernel}/{row['stride']}"
    x = random_codes(batch, c, size, size).contiguous(memory_format=torch.channels_last)
    weight = random_weights(out, c, kernel, kernel)
    rest = (None, out, [kernel] * 2, stride, padding, [1, 1], 1, False)

    def ours(packed: Tensor) -> Callable[[], Tensor]:
        with torch.backends.cudnn.flags(enabled=False):  # exact in float64
            want = int8_conv2d_ref(x, packed, *rest)
        require_equal(name, torch.ops.fastinfer.int8_conv2d(x, packed, *rest), want)
        return lambda: torch.ops.fastinfer.int8_conv2d(x, packed, *rest)

    packed = packed_weight("conv2d", weight, 0 if c % 16 == 0 else 114)
    call = ours(packed)
    result = call()
    timing = time_call(call)
    other_us = None
    if row["padding"] and c % 16 == 0:
        other_us = time_call(ours(packed_weight("conv2d", weight, 128))).median
    half_us, bfloat_us = (
        cudnn_us(x, weight, dtype, stride, padding) for dtype in (torch.float16, torch.bfloat16)
    )
    m, taps = result.numel() // out, kernel * kernel
    k = taps * (4 if c <= 4 else -(-c // 16) * 16)
    moved = x.numel() + packed.numel() + result.numel()
    return {
        "shape": name,
        "config": "first layer's" if c <= 4 else chosen(m, out, k, conv_source(row)),
        "us": timing.median,
        "p20": timing.p20,
        "p80": timing.p80,
        **figures(timing.median, result.numel() * c * taps, moved, limits),
        "zero point 128 us": other_us,
        "fp16 us": half_us,
        "vs fp16": half_us / timing.median,
        "bf16 us": bfloat_us,
        "vs bf16": bfloat_us / timing.median,
        "times": row["count"],
        "sweep": sweep(name, call, result) if with_sweep else {},
    }


def depthwise_sweep(name: str, call: Callable[[], Tensor], want: Tensor) -> dict[str, float]:
    """Return microseconds of strips and lanes, each checked."""
    kernels, found = runtime.require_cuda_kernels(), {}
    try:
        for strip, lanes in product((2, 4, 7, 14, 28), (16, 32, 64)):
            kernels.force_depthwise(strip, lanes)
            require_equal(f"{name} strip {strip}, {lanes} lanes", call(), want)
            found[f"strip {strip} lanes {lanes}"] = time_call(call, SWEEP_RUNS).median
    finally:
        kernels.force_depthwise()
    return found


def depthwise(
    row: dict[str, Any], batch: int, limits: dict[str, Any], with_sweep: bool
) -> dict[str, Any]:
    """Return the figures of one depthwise convolution; what bounds it is memory."""
    c, size, kernel = row["channels"], row["size"], row["kernel"]
    stride, padding = [row["stride"]] * 2, [row["padding"]] * 2
    name = f"{batch}x{c}x{size} {kernel}x{kernel}/{row['stride']}"
    x = random_codes(batch, c, size, size).contiguous(memory_format=torch.channels_last)
    weight = random_weights(c, 1, kernel, kernel)
    packed = packed_weight("depthwise_conv2d", weight, 0, c)
    rest = (None, [kernel] * 2, stride, padding, [1, 1], False)

    def ours() -> Tensor:
        return torch.ops.fastinfer.int8_depthwise_conv2d(x, packed, *rest)

    with torch.backends.cudnn.flags(enabled=False):  # exact in float64
        want = int8_depthwise_conv2d_ref(x, packed, *rest)
    result = ours()
    require_equal(name, result, want)
    timing = time_call(ours)
    half_us = cudnn_us(x, weight, torch.float16, stride, padding, 1, c)
    moved = x.numel() + packed.numel() + result.numel()
    rates = figures(timing.median, result.numel() * kernel**2, moved, limits)
    config = runtime.require_cuda_kernels().choose_depthwise(
        batch, c, *result.shape[2:], kernel, row["stride"]
    )
    return {
        "shape": name,
        "config": "strip {strip} lanes {lanes}".format(**config),
        "us": timing.median,
        "p20": timing.p20,
        "p80": timing.p80,
        "GB/s": rates["GB/s"],
        "copy %": rates["copy %"],
        "fp16 us": half_us,
        "vs fp16": half_us / timing.median,
        "times": row["count"],
        "sweep": depthwise_sweep(name, ours, want) if with_sweep else {},
    }


def quantize(limits: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the figures of quantizing in the order of memory, and from NCHW to NHWC."""
    rows = []
    for shape, nhwc in (((1 << 27,), False), ((64, 3, 224, 224), True), ((64, 256, 56, 56), True)):
        x = torch.randn(shape, device="cuda")
        args = (x, 0.02, 128, nhwc)
        timing = time_call(lambda args=args: torch.ops.fastinfer.quantize(*args))
        gbs = 5e-3 * x.numel() / timing.median
        name = "x".join(map(str, shape)) + (" to NHWC" if nhwc else "")
        rows.append(
            {"shape": name, "us": timing.median, "GB/s": gbs,
             "copy %": 100 * gbs / limits["copy_gbs"]}
        )  # fmt: skip
    return rows


def without_sweep(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows as a table shows them, with the fastest tile where all were tried."""
    shown = []
    for row in rows:
        best = min(row["sweep"].items(), key=lambda i: i[1], default=(None, None))
        table = {k: v for k, v in row.items() if k not in ("sweep", "p20", "p80")}
        shown.append({**table, "best tile": best[0], "its us": best[1]})
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--suite", choices=SUITES, action="append")
    parser.add_argument("--batch", type=int, nargs="+", default=[32], help="of convolutions")
    parser.add_argument("--no-sweep", action="store_true", help="only the tile that is chosen")
    parser.add_argument("--out", type=Path, required=True, help="JSON")
    options = parser.parse_args()
    torch.backends.cudnn.benchmark = True
    peak = int8_peak()
    limits = {"copy_gbs": copy_bandwidth(), "int8_tops": 1e-12 * peak if peak else None}
    show("limits", [limits])
    found: dict[str, Any] = {
        "machine": describe_machine(cuda=torch.version.cuda),
        "limits": limits,
    }

    def keep() -> None:
        options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")

    suites = options.suite or SUITES
    failed: list[str] = []
    if "linear" in suites:
        shapes = read_shapes("gpu_gemm")
        found["linear"] = [linear(row, limits, not options.no_sweep) for row in shapes]
        show("int8_linear", without_sweep(found["linear"]))
        keep()
    if "quantize" in suites:
        found["quantize"] = quantize(limits)
        show("quantize", found["quantize"])
        keep()
    if "conv" in suites:
        found["conv"] = []
        for batch, row in product(options.batch, read_shapes("resnet50")):
            try:
                found["conv"].append(conv(row, batch, limits, not options.no_sweep))
            except (AssertionError, RuntimeError) as error:  # the others are worth their time
                failed.append(f"batch {batch}, {row}: {error}")
        show("int8_conv2d", without_sweep(found["conv"]))
        keep()
    if "depthwise" in suites:
        found["depthwise"] = []
        for batch, shapes in product(options.batch, DEPTHWISE_SHAPES):
            for row in read_shapes(shapes):
                model = shapes.removesuffix("_depthwise")
                try:
                    figured = depthwise(row, batch, limits, not options.no_sweep)
                    found["depthwise"].append({"model": model, **figured})
                except (AssertionError, RuntimeError) as error:
                    failed.append(f"batch {batch}, {row}: {error}")
        show("int8_depthwise_conv2d", without_sweep(found["depthwise"]))
        keep()
    if failed:
        raise SystemExit("\n".join(failed))


if __name__ == "__main__":
    main()
