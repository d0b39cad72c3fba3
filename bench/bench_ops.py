"""Our int8 ops against torch's, shape by shape: python bench/bench_ops.py [--suite gemm].

Ours is checked `==` the reference before it is timed; `onednn off %` is the share of onednn's
outputs that are more than one step away from it (its AVX2 kernels saturate). `peak %` is the share
of the measured peak of the int8 instruction in use here; `vs onednn` above 1: we are faster.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from baselines import Geometry, Quantized, float_conv, float_linear, onednn_conv, onednn_linear
from harness import measure_peak, read_shapes, results_path, show, write_json
from torch import Tensor

from fastinfer import runtime
from fastinfer.measure import time_interleaved
from fastinfer.ops.catalog import OPS

REFERENCES = {op.name: op.reference for op in OPS}
SUITES = ("gemm", "mobilenet_v2_depthwise", "mobilenet_v2_pointwise", "resnet50")
OURS, ONEDNN, FLOAT = "fastinfer", "onednn int8", "fp32"


def random_layer(generator: torch.Generator, *shape: int) -> Quantized:
    """Return a layer with weights quantized from normal ones, activations in 0..255."""
    real = torch.randn(shape, generator=generator)
    scale = real.flatten(1).abs().amax(1) / 127
    steps = (real / scale.reshape(-1, *[1] * (len(shape) - 1))).round().to(torch.int8)
    x_scale = 0.02
    spread = x_scale * 74.0 * real[0].numel() ** 0.5
    return Quantized(
        weight=steps,
        scale=scale,
        bias=torch.randn(shape[0], generator=generator),
        x_scale=x_scale,
        x_zero_point=120,
        out_scale=6 * spread / 255,
        out_zero_point=128,
    )


def prepacked(op: str, layer: Quantized, groups: int = 1) -> Tensor:
    """Return the layer packed for the ISA in force."""
    infinity = float("inf")
    return torch.ops.fastinfer.int8_prepack(
        op, layer.weight, layer.folded_bias, layer.multiplier, None, None, None, groups,
        layer.x_zero_point, layer.out_zero_point, 0, 255, -infinity, infinity, False,
    )  # fmt: skip


def checked(op: str, arguments: Sequence[Any]) -> tuple[Callable[[], Tensor], Tensor]:
    """Return a call of ours and its result, which is equal to the reference's.

    Raises:
        AssertionError: it is not.
    """
    call = getattr(torch.ops.fastinfer, op).default
    result = call(*arguments)
    wanted = REFERENCES[op](*arguments)
    if not torch.equal(result, wanted):
        wrong = int((result != wanted).sum())
        raise AssertionError(f"{op}: {wrong} of {wanted.numel()} outputs differ from the reference")
    return lambda: call(*arguments), result


@dataclass(frozen=True)
class Contest:
    """The contenders for one shape, our result, and the multiply-adds it takes."""

    name: str
    runs: dict[str, Callable[[], Tensor]]
    result: Tensor
    multiply_adds: int

    def onednn_off(self) -> float:
        """Return the share of onednn's outputs more than one step from ours, in %."""
        difference = self.runs[ONEDNN]().int() - self.result.int()
        return 100 * float((difference.abs() > 1).double().mean())


def gemm(row: dict[str, Any]) -> Contest:
    """Return the contest of a matrix product."""
    m, n, k = row["m"], row["n"], row["k"]
    generator = torch.Generator().manual_seed(m * 7919 + n * 31 + k)
    layer = random_layer(generator, n, k)
    x = torch.randint(0, 256, (m, k), generator=generator, dtype=torch.uint8)
    ours, result = checked("int8_linear", (x, prepacked("linear", layer), None, n, False))
    runs = {OURS: ours, ONEDNN: onednn_linear(layer, x), FLOAT: float_linear(layer, x)}
    return Contest(f"{m}x{n}x{k}", runs, result, m * n * k)


def conv(row: dict[str, Any]) -> Contest:
    """Return the contest of a convolution at batch 1."""
    c, size, out, kernel = row["channels"], row["size"], row["out_channels"], row["kernel"]
    geometry = Geometry(row["stride"], row["padding"], row["groups"])
    generator = torch.Generator().manual_seed(c * 7919 + size * 31 + out)
    layer = random_layer(generator, out, c // geometry.groups, kernel, kernel)
    x = torch.randint(0, 256, (1, c, size, size), generator=generator, dtype=torch.uint8)
    x = x.contiguous(memory_format=torch.channels_last)
    pairs = [[kernel] * 2, [geometry.stride] * 2, [geometry.padding] * 2, [1, 1]]
    if geometry.groups == c == out and c > 1:
        op, kind = "int8_depthwise_conv2d", "depthwise_conv2d"
        arguments = (x, prepacked(kind, layer, c), None, *pairs, False)
    else:
        op, kind = "int8_conv2d", "conv2d"
        packed = prepacked(kind, layer, geometry.groups)
        arguments = (x, packed, None, out, *pairs, geometry.groups, False)
    ours, result = checked(op, arguments)
    runs = {
        OURS: ours,
        ONEDNN: onednn_conv(layer, x, geometry),
        FLOAT: float_conv(layer, x, geometry),
    }
    name = f"{c}x{size} -> {out} {kernel}x{kernel}/{geometry.stride}"
    work = result.numel() * (c // geometry.groups) * kernel * kernel
    return Contest(name, runs, result, work)


def run_suite(
    suite: str, threads: Sequence[int], seconds: float, peaks: dict[int, dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return a row per shape and number of threads."""
    rows = []
    for shape in read_shapes(suite):
        contest = (gemm if suite == "gemm" else conv)(shape)
        off = contest.onednn_off()
        for count in threads:
            with torch.inference_mode():
                timings = time_interleaved(contest.runs, min_time_s=seconds, threads=count)
            ours = timings[OURS]
            gops = 2e-6 * contest.multiply_adds / ours.median_ms
            measured = peaks.get(count, {})
            peak = measured.get("int8_amx_gops" if runtime.isa() == "amx" else "int8_gops")
            rows.append(
                {
                    "shape": contest.name,
                    "threads": count,
                    "us": 1e3 * ours.median_ms,
                    "p20": 1e3 * ours.p20_ms,
                    "p80": 1e3 * ours.p80_ms,
                    "runs": ours.runs,
                    "GOPS": gops,
                    "peak %": 100 * gops / peak if peak else None,
                    "onednn us": 1e3 * timings[ONEDNN].median_ms,
                    "vs onednn": timings[ONEDNN].median_ms / ours.median_ms,
                    "onednn off %": off,
                    "fp32 us": 1e3 * timings[FLOAT].median_ms,
                    "vs fp32": timings[FLOAT].median_ms / ours.median_ms,
                }
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--suite", choices=SUITES, action="append", help="default: all")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=0.1, help="per contender and row")
    parser.add_argument("--out", type=Path, help="default: in bench/results, when all suites ran")
    options = parser.parse_args()
    if options.out is None and options.suite is None:
        options.out = results_path("bench_ops")
    peaks = measure_peak(options.threads)
    show("measured peak", list(peaks.values()))
    found: dict[str, Any] = {}
    for suite in options.suite or SUITES:
        found[suite] = run_suite(suite, options.threads, options.seconds, peaks)
        show(suite, found[suite])
    write_json(options.out, peak=peaks, suites=found)


if __name__ == "__main__":
    main()
